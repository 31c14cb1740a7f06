# A server with workers: which they are, what listeners hear of them, and what they say in
# its log.
package EventStoreWorkers;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use EventStoreTest;

our @EXPORT = qw(
  new_worker_store new_plain_store set_conf workers has_workers is_announced append
  listen_to heard hear_until hears wait_for_senders start_load log_lines has_no_errors);

my $patience = 60;    # seconds to wait for what is to come
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node;

# The process that writes a line of the log
my $prefix = "log_line_prefix = '%m [%p] %b %q%a '\n";

# The server that the others are about.
sub new_worker_store
{
	my ($conf) = @_;

	$node = new_store(
		'worker',
		streaming => 1,
		workers   => 2,
		conf      => $prefix . q{
eventstore.databases = 'postgres, later, "Absent One"'
max_worker_processes = 12
restart_after_crash = on
# Databases of the list have the workers of the launcher, and no others.
eventstore.autostart_workers = 2
} . $conf);
	return $node;
}

# One without shared_preload_libraries
sub new_plain_store
{
	$node = new_store('plain', conf => "${prefix}max_worker_processes = 2\neventstore.poll_interval = '100ms'\n");
	return $node;
}

sub set_conf
{
	my (%settings) = @_;

	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;
	return;
}

sub workers
{
	my ($database) = @_;

	return split /\n/, $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = '$database'");
}

sub has_workers
{
	my ($database, $count, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until('postgres',
			"SELECT count(*) = $count FROM pg_stat_activity
			  WHERE backend_type = 'eventstore worker' AND datname = '$database'"),
		$name);
	return;
}

# Waits until workers have notified of all that is there, and written it down.
sub is_announced
{
	my ($name, $database) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($database // 'postgres',
			'SELECT position = (SELECT coalesce(max(position), 0) FROM es_events) FROM es_notified'),
		"$name: all is notified");
	return;
}

sub append
{
	my ($stream, $database) = @_;

	return $node->safe_psql($database // 'postgres',
		"SELECT position FROM es_append('$stream', 'any', 'x')");
}

# A session that hears.
sub listen_to
{
	my ($database, @channels) = @_;
	my $session = $node->background_psql($database);

	$session->query_safe(qq{LISTEN "$_"}) foreach @channels;
	return $session;
}

# What it has heard since the last time: [channel, position, process].
sub heard
{
	my ($session) = @_;
	my $output = $session->query_safe('SELECT 1');
	my @heard;

	push @heard, [ $1, $2, $3 ]
	  while $output =~ /notification "([^"]+)" with payload "(\d+)" received from server process with PID (\d+)/g;
	return @heard;
}

# All it hears until the test of that is true.
sub hear_until
{
	my ($session, $test) = @_;
	my $end = time() + $patience;
	my @heard;

	while (time() < $end)
	{
		push @heard, heard($session);
		last if $test->(@heard);
		sleep 0.02;
	}
	return @heard;
}

sub hears
{
	my ($session, $channel, $position, $name) = @_;
	my @heard = hear_until($session, sub { grep { $_->[0] eq $channel && $_->[1] == $position } @_ });

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(scalar(grep { $_->[0] eq $channel && $_->[1] == $position } @heard), $name)
	  or diag(join ', ', map { "@$_" } @heard);
	return @heard;
}

# Waits until appenders leave their notifications to workers.
sub wait_for_senders
{
	my ($session, $name) = @_;
	my $end = time() + $patience;
	my $notified = 0;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	while (!$notified && time() < $end)
	{
		my $position = append('account-1');
		my @heard = hear_until($session, sub { grep { $_->[1] == $position } @_ });
		my %worker = map { $_ => 1 } workers('postgres');

		$notified = !grep { !$worker{ $_->[2] } } @heard;
		sleep 0.1;
	}
	ok($notified, "$name: workers notify");
	return;
}

sub start_load
{
	my ($seconds, $clients) = @_;

	append_to_file("$folder/load.sql",
		"\\set s random(1, 20)\nSELECT es_append('load:client_id-:s', 'any', 'x');\n")
	  unless -e "$folder/load.sql";
	return IPC::Run::start(
		[ 'pgbench', '-n', '-c', $clients, '-T', $seconds, '--random-seed', int rand 2**31, '-f', "$folder/load.sql", $node->connstr('postgres') ],
		'<', '/dev/null', '>', "$folder/load.out", '2>', "$folder/load.err",
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
}

sub log_lines
{
	my ($pattern) = @_;

	return grep { /$pattern/ } split /\n/, slurp_file($node->logfile);
}

sub has_no_errors
{
	my ($name) = @_;
	my @lines = log_lines(qr/eventstore (?:worker|launcher) .*(?:WARNING|ERROR|FATAL|PANIC):/);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("@lines", '', "$name: no error of a worker in the log");
	return;
}

1;
