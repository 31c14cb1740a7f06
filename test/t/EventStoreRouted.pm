# Clients that find their store in a map, which changes while they run: writers that know the version
# of each of their streams and repeat an append until it is acknowledged, and consumers.  What they
# have done is in files of $routed_folder.
package EventStoreRouted;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

use EventStoreTest;

our @EXPORT = qw(
  $routed_folder
  slots_of_streams write_routes routed run_psql
  start_child await_children forget_clients is_to_stop stop_clients
  write_routed consume lines_of acknowledged);

our $routed_folder = abs_path(PostgreSQL::Test::Utils::tempdir());
my @children;
my $parent = $$;

# Also when the test dies.
END
{
	local $? = $?;

	if ($$ == $parent)
	{
		stop_clients($_) foreach qw(writers consumers all);
		await_children();
	}
}

# What a client meets while its store changes: it asks the map again, and repeats.
my $passing = qr/ES009|could not connect|starting up|shutting down|connection to server|terminating connection|closed the connection|on a logical replica/;

# The slot of each stream of the writers.
sub slots_of_streams
{
	my ($server, $writers) = @_;

	return map { split /\|/ } split /\n/, $server->safe_psql('postgres',
		qq{SELECT s, es_partition(s, 1024) FROM (SELECT 'w' || w || '-' || n AS s FROM generate_series(1, $writers) w, generate_series(1, 12) n) x});
}

# The map: [first slot, slot behind the last one, connection].
sub write_routes
{
	my (@routes) = @_;

	open(my $file, '>', "$routed_folder/map.part") or die $!;
	print $file "@$_\n" foreach @routes;
	close($file);
	rename("$routed_folder/map.part", "$routed_folder/map") or die $!;
	return;
}

# How to connect to the server that has a slot, as clients know it.
sub routed
{
	my ($wanted) = @_;

	foreach my $line (split /\n/, slurp_file("$routed_folder/map"))
	{
		my ($from, $to, $connection) = split / /, $line, 3;

		return $connection if $wanted >= $from && $wanted < $to;
	}
	die "no server has slot $wanted";
}

# Runs a statement.  Returns true, its rows and its error.
sub run_psql
{
	my ($connection, $statement) = @_;
	my ($out, $err) = ('', '');
	my $done = IPC::Run::run([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $connection, '-c', $statement ], '<', '/dev/null', '>', \$out, '2>', \$err);

	return ($done, $out, $err);
}

sub is_to_stop
{
	my ($what) = @_;

	return -e "$routed_folder/stop-$what";
}

sub stop_clients
{
	my ($what) = @_;

	append_to_file("$routed_folder/stop-$what", '');
	return;
}

# Runs a process, which must not end a test or a server.
sub start_child
{
	my ($code) = @_;
	my $pid = fork() // die $!;

	if ($pid == 0)
	{
		eval { $code->(); 1 } or append_to_file("$routed_folder/errors", $@);
		POSIX::_exit(0);
	}
	push @children, $pid;
	return;
}

sub await_children
{
	waitpid($_, 0) foreach @children;
	@children = ();
	return;
}

# Another set of clients begins.
sub forget_clients
{
	$routed_folder = abs_path(PostgreSQL::Test::Utils::tempdir());
	return;
}

# Appends, each event until its append is acknowledged.
sub write_routed
{
	my ($number, %slot) = @_;
	my %version;

	for (my $i = 1; !is_to_stop('writers'); $i++)
	{
		my $stream   = "w$number-" . (1 + $i % 12);
		my $id       = sprintf('00000000-0000-4000-8000-%04d%08d', $number, $i);
		my $expected = $version{$stream} // 0;

		while (1)
		{
			my ($done, $out, $err) = run_psql(routed($slot{$stream}), "SELECT version FROM es_append('$stream', $expected, 'e', id => '$id')");

			chomp $out;
			if ($done)
			{
				append_to_file("$routed_folder/acknowledged-$number", "$id $stream $out\n");
				$version{$stream} = $out;
				last;
			}
			die "$stream: $err" if $err !~ $passing || is_to_stop('all');
			append_to_file("$routed_folder/refused", "$stream\n") if $err =~ /ES009/;
			usleep(20_000);
		}
	}
	return;
}

# Polls a store, and notes what it delivers.
sub consume
{
	my ($name, $connection) = @_;

	until (is_to_stop('consumers'))
	{
		my (undef, $out, $err) = run_psql($connection, q{SELECT token, id, stream, version FROM es_poll('all', 'c', 100)});
		my %tokens;

		die "$name: $err" if $err ne '';
		foreach my $row (split /\n/, $out)
		{
			my ($token, @event) = split /\|/, $row;

			$tokens{$token} = 1;
			append_to_file("$routed_folder/delivered", "@event $name\n");
		}
		foreach my $token (keys %tokens)
		{
			my ($done, undef, $error) = run_psql($connection, "SELECT es_ack('all', $token)");

			die "$name: $error" unless $done;
		}
		usleep(50_000) unless %tokens;
	}
	return;
}

sub lines_of
{
	return map { -e $_ ? split(/\n/, slurp_file($_)) : () } map { "$routed_folder/$_" } @_;
}

# What so many writers know to be stored.
sub acknowledged
{
	my ($writers) = @_;

	return lines_of(map { "acknowledged-$_" } 1 .. $writers);
}

1;
