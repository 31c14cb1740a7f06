package Session;

# A psql that stays open, for work that needs one session: an open transaction, or
# times as the client sees them.
use strict;
use warnings;
use IPC::Open2;

sub new
{
	my ($class) = @_;
	my $pid = open2(my $out, my $in, qw(sh -c), 'exec "$@" 2>&1', 'sh', qw(stdbuf -oL psql -X -q -t -A -v ON_ERROR_STOP=1));
	my $self = bless { pid => $pid, out => $out, in => $in }, $class;

	$self->ask('SELECT 1');
	return $self;
}

# The lines of the answer.
sub ask
{
	my ($self, $sql) = @_;
	my ($out, $in) = @$self{qw(out in)};
	my @lines;

	local $SIG{PIPE} = 'IGNORE';
	print $in "$sql;\n\\echo answered\n";
	$in->flush;
	while (my $line = <$out>)
	{
		chomp $line;
		return @lines if $line eq 'answered';
		push @lines, $line;
	}
	die "$sql failed: @lines\n";
}

# Milliseconds of each statement.
sub times_of
{
	my ($self, @statements) = @_;

	$self->ask("\\timing on\nSELECT 1");
	return map {
		my ($time) = join("\n", $self->ask($_)) =~ /^Time: ([0-9.]+) ms/m or die "$_ had no time\n";
		$time
	} @statements;
}

sub DESTROY
{
	my ($self) = @_;
	my ($status, $error) = ($?, $@);

	close $self->{in};
	close $self->{out};
	waitpid $self->{pid}, 0;
	($?, $@) = ($status, $error);
	return;
}

1;
