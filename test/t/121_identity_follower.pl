# examples/follower.py keeps its own position: it goes on over restarts of itself and of the
# server, and over a promotion if it was not ahead of the standby; if it was, it stops.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Cwd qw(abs_path);
use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = abs_path("$FindBin::RealBin/../..");
my ($python) = grep { system("$_ -c 'import psycopg, sqlite3' 2>/dev/null") == 0 } qw(/usr/bin/python3 python3);

plan skip_all => 'python3 with psycopg 3 is not here' unless $python;

my $folder = PostgreSQL::Test::Utils::tempdir();
my $primary = new_store('primary', streaming => 1);
my ($run, $err);

sub start_follower
{
	my ($node, $file) = @_;

	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = 'postgres';
	$err = '';
	$run = IPC::Run::start([ $python, "$top/examples/follower.py", "$folder/$file" ], '<', '/dev/null', '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return;
}

sub stop_follower
{
	$run->signal('TERM');
	$run->finish;
	return $run->result;
}

# What it has made of the events: position, and streams with their counts.
sub made
{
	my ($file) = @_;
	my $out = '';

	IPC::Run::run([ $python, '-c', <<'END', "$folder/$file" ], '>', \$out, '2>', '/dev/null');
import sqlite3, sys
file = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
print(*file.execute("SELECT position FROM at").fetchone(), *sorted(f"{s}:{n}" for s, n in file.execute("SELECT * FROM streams")))
END
	chomp $out;
	return $out;
}

sub log_of
{
	my ($node) = @_;

	return $node->safe_psql('postgres', q{SELECT max(position) || ' ' || (SELECT string_agg(stream || ':' || n, ' ' ORDER BY stream)
		FROM (SELECT stream, count(*) AS n FROM es_events GROUP BY stream) AS s) FROM es_events});
}

sub append
{
	my ($node, $stream, $count) = @_;

	$node->safe_psql('postgres', "INSERT INTO es_import (stream, type) SELECT '$stream-' || n % 3, 'x' FROM generate_series(1, $count) AS n");
	return;
}

# Follows to the end of the log.
sub follows
{
	my ($node, $file, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	start_follower($node, $file);
	wait_until("$name: it follows", sub { $run->pumpable && made($file) eq log_of($node) || $err =~ /Error/ }, 0.1);
	is(made($file), log_of($node), "$name: it has the log");
	return;
}

append($primary, 'a', 2500);
follows($primary, 'one', 'at the start');
append($primary, 'b', 10);
wait_until('it follows', sub { made('one') eq log_of($primary) }, 0.1);
$primary->restart;
append($primary, 'b', 10);
wait_until('it follows over a restart of the server', sub { made('one') eq log_of($primary) }, 0.1);
is(stop_follower() || 0, 0, 'it stops when it is told to');
append($primary, 'b', 10);
follows($primary, 'one', 'started again');
stop_follower();

my $standby = new_standby($primary);
append($primary, 'c', 5);
$primary->wait_for_catchup($standby);
follows($standby, 'level', 'on the standby');
stop_follower();
$standby->safe_psql('postgres', q{ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()});
ok($standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver'), 'the standby receives no more');
append($primary, 'lost', 40);
follows($primary, 'one', 'ahead of the standby');
stop_follower();
my $before = made('one');
$primary->stop('immediate');
$standby->promote;
foreach my $when ('before an append', 'after many')
{
	append($standby, 'd', 100) if $when eq 'after many';
	start_follower($standby, 'one');
	$run->finish;
	is($run->result, 1, "ahead, $when: it stops");
	like($err, qr/^The log is not the one that was read up to position \d+: /, "ahead, $when: and says why");
	is(made('one'), $before, "ahead, $when: it has read nothing");
}
follows($standby, 'level', 'not ahead: it goes on');
stop_follower();
unlink "$folder/one";
follows($standby, 'one', 'begun again');
stop_follower();
is(made('one'), made('level'), 'both have the same');
$standby->stop;
done_testing();
