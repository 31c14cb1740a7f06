package Mixed;

# Reads of one category beside message-db, in a log with categories of every
# kind: of its start, of its end, rare, absent, of half of all events, of 1 %.
use strict;
use warnings;
use Rounds;

my @stores = ('eventstore', 'message-db');
my %database = ('eventstore' => 'eventstore_mixed', 'message-db' => 'message_db_mixed');
my %position = ('eventstore' => 'position', 'message-db' => 'global_position');
my %page = (
	'eventstore' => sub { "SELECT * FROM es_read_category('$_[0]', $_[1], $_[2])" },
	'message-db' => sub { "SELECT * FROM message_store.get_category_messages('$_[0]', $_[1] + 1, $_[2])" });

# here: the folder of the SQL files; folder: of scripts; record: what notes a figure.
sub new
{
	my ($class, %self) = @_;

	return bless { %self, figures => {}, planned => 0 }, $class;
}

# Name, words, category, from where, how many.
sub kinds
{
	my ($size) = @_;

	return (
		[ 'early', '100 events of the log\'s first 1,000', 'early', 0, 100 ],
		[ 'late', '100 events of its last 1,000', "late$size", 0, 100 ],
		[ 'rare', '20 events of one in 5,000', 'rare', 0, 20 ],
		[ 'absent', 'a category without events', 'absent', 0, 100 ],
		[ 'half', '100 events anywhere of half of all', 'huge', ':p', 100 ],
		[ 'hundredth', '100 events anywhere of 1 % of all', 'c77', ':p', 100 ]);
}

# In as many processes as there are stores.
sub fill
{
	my ($self, $size) = @_;
	my $first = $self->{planned} + 1;
	my @children;

	for my $store (@stores)
	{
		local $ENV{PGOPTIONS} = '-c synchronous_commit=off -c client_min_messages=warning';
		my $child = fork // die "fork: $!\n";
		exec 'psql', qw(-X -q -o /dev/null -v ON_ERROR_STOP=1 -d), $database{$store}, '-v', "first=$first", '-v', "last=$size",
		  '-f', "$self->{here}/mixed-$store.sql", '-c', 'VACUUM (ANALYZE)'
		  or die "psql: $!\n"
		  if $child == 0;
		push @children, $child;
	}
	for (@children)
	{
		waitpid $_, 0;
		die "a store with categories of every kind could not be filled\n" if $? != 0;
	}
	$self->{planned} = $size;
	return;
}

# Pages a second, by one client.
sub read_pages
{
	my ($self, $size, $store, $kind) = @_;
	my ($name, undef, $category, $from, $count) = @$kind;
	my $file = write_file($self->{folder}, "$store $name", '\set p random(0, ' . int($size * 0.8) . ")\n"
		  . $page{$store}->($category, $from, $count) . ";\n");

	local $ENV{PGDATABASE} = $database{$store};
	$self->note($size, $name, $store, run_pgbench($file, 1, $self->{seconds}));
	return;
}

# Events a second, from the start of the log.
sub catch_up
{
	my ($self, $size, $store, $category) = @_;

	local $ENV{PGDATABASE} = $database{$store};
	local $ENV{POSITION} = $position{$store};
	local $ENV{PAGE} = $page{$store}->($category, '$1::bigint', 1000);
	my $figure = `$self->{folder}/reader catch-up 1000000 @{[ 2 * $self->{seconds} ]}`;
	die "the reader failed\n" if $? != 0;
	$self->note($size, "catch up, $category", $store, $figure + 0);
	return;
}

sub note
{
	my ($self, $size, $what, $store, $figure) = @_;

	push @{ $self->{figures}{$size}{$what}{$store} }, $figure;
	$self->{record}->($size, "category, $what", $store, $figure);
	return;
}

# Fills up to each size, and measures there.
sub measure
{
	my ($self, $rounds, @sizes) = @_;

	for my $size (@sizes)
	{
		print STDERR "filling the log with categories of every kind up to $size events\n";
		$self->fill($size);
		for my $round (1 .. $rounds)
		{
			my @turned = turned($round, @stores);

			for my $kind (kinds($size))
			{
				$self->read_pages($size, $_, $kind) for @turned;
			}
			for my $category (qw(huge c77))
			{
				$self->catch_up($size, $_, $category) for @turned;
			}
		}
	}
	return;
}

sub row
{
	my ($self, $size, $words, $what) = @_;
	my ($ours, $theirs) = map { $self->{figures}{$size}{$what}{$_} } @stores;
	my @ratios = ratios($ours, $theirs);
	my $line = sprintf '%s (%s events): %.2f', $words, grouped($size), median(@ratios);

	push @{ $self->{below} }, $line if median(@ratios) < 0.995;
	return sprintf "| %s | %s | %s | %.2f | %.2f to %.2f |\n", $words, (map { grouped(median(@$_)) } $ours, $theirs),
	  median(@ratios), @ratios[ 0, -1 ];
}

sub tables
{
	my ($self) = @_;
	my $text = "\n### Reads of one category\n";

	for my $size (sort { $a <=> $b } keys %{ $self->{figures} })
	{
		$text .= "\n" . grouped($size) . " events; pages a second by one client, or events a second. Expected of each ratio: 1.00.\n\n"
		  . "| what | eventstore | message-db | ratio | of the rounds |\n|---|---:|---:|---:|---|\n"
		  . join '', (map { $self->row($size, "es_read_category, $_->[1]", $_->[0]) } kinds($size)),
		  $self->row($size, 'catch up with half of all events, pages of 1,000; events a second', 'catch up, huge'),
		  $self->row($size, 'catch up with 1 % of all events, pages of 1,000; events a second', 'catch up, c77');
	}
	return $text;
}

1;
