# Many rows into many streams through COPY, in one transaction, with the
# server's default settings: the lock table has room for a few thousand locks.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use IPC::Run;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $rows = few_or_many(200_000, 1_000_000);
my $streams = few_or_many(20_000, 100_000);

# Undoes what the tests otherwise change.
my $node = new_store('import', fsync => 'on', conf => <<'END');
max_connections = 100
max_prepared_transactions = 0
shared_buffers = 128MB
wal_level = replica
max_wal_senders = 10
autovacuum_naptime = 1s
END

# The rows of a stream are far apart, and one stream has an event before.
my $folder = PostgreSQL::Test::Utils::tempdir();
my $file = "$folder/rows";
open my $out, '>', $file or die "$file: $!";
print $out 'account-', $_ * 7919 % $streams, "\tmoved\t{\"n\": $_}\n" foreach 1 .. $rows;
close $out;
$node->safe_psql('postgres', q{SELECT es_append('account-7', 'none', 'opened')});

# The import, and from another session what it looks like while it is not committed.
my $start = time;
my $session = $node->background_psql('postgres', timeout => 300);
$session->query_safe('BEGIN');
$session->query_safe("\\copy es_import (stream, type, data) FROM '$file'");
my $seconds = time - $start;
my $locks = $session->query_safe('SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
is_query($node, 'SELECT count(*) FROM es_read()', '1', 'nothing is to be seen before it is committed');
like(
	($node->psql('postgres',
		q{SET lock_timeout = '100ms'; SELECT es_append('unrelated-1', 'any', 'other')}))[2],
	qr/lock timeout/, 'so many streams are locked by locking the log');
$session->query_safe('COMMIT');
$seconds = time - $start;
diag(sprintf 'import: %d rows into %d streams in %.1f s, %d a second, with %d locks',
	$rows, $streams, $seconds, $rows / $seconds, $locks);
cmp_ok($locks, '<', 1100, 'it has taken a thousand locks, not one for each stream');
# an autovacuum may have begun
is_query($node, "SELECT count(*) FROM pg_locks WHERE pid = $pid AND (locktype = 'advisory' OR relation = 'es_events'::regclass)",
	'0', 'its locks are gone');
$session->quit;

is_query($node, 'SELECT count(*), count(DISTINCT stream) FROM es_events',
	($rows + 1) . "|$streams", 'all rows are there');
is_query($node, q{SELECT count(*) FROM (
	SELECT (data->>'n')::bigint AS n, row_number() OVER (ORDER BY position) AS place
	  FROM es_events WHERE data ? 'n') AS numbered WHERE n <> place},
	'0', 'in the order of the file');
holds_versions_dense($node, 'import');
holds_horizon_at_end($node, 'import');
is_query($node, 'SELECT version, position > '
	  . $node->safe_psql('postgres', 'SELECT max(position) FROM es_events')
	  . q{ FROM es_append('account-7', 11, 'moved')}, '12|t', 'appends go on');

# Autovacuum freezes what has come, once and for all. What a snapshot of that moment could
# not see waits for the next 50,000.
$node->safe_psql('postgres', 'CREATE EXTENSION pg_visibility');
my $added = 0;
wait_until('the log is frozen', sub {
	$node->safe_psql('postgres', q{INSERT INTO es_import (stream, type) SELECT 'more-' || i, 't' FROM generate_series(1, 10000) AS i});
	$added += 10_000;
	return $node->safe_psql('postgres', q{SELECT all_frozen > 0.7 * pg_relation_size('es_events') / 8192
		FROM pg_visibility_map_summary('es_events')}) eq 't';
}, 0.5);
pass('the log is frozen soon after');

# A consumer of a rare type has a time-out that is too short to read over all others at
# once. A call that ends in time has read over 1,024 of them or more, and keeps how far it has
# come. One that a slow machine lets run into its time-out does not count.
$node->safe_psql('postgres', q{SELECT es_create_subscription(name, types => '{rare}') FROM unnest(ARRAY['rare', 'patient']) AS name});
$node->safe_psql('postgres', q{SELECT es_append('rare-1', 'none', 'rare')});
is($node->safe_psql('postgres', q{SELECT type FROM es_poll('patient')}), 'rare', 'a rare event comes');
my $most = $node->safe_psql('postgres', 'SELECT max(position) / 1024 + 1 FROM es_events');
my $calls = 0;
wait_until('the rare event is delivered', sub {
	my ($failed, $rows) = $node->psql('postgres', q{SET statement_timeout = '60ms'; SELECT type FROM es_poll('rare')});

	$calls++ if !$failed;
	return !$failed && $rows =~ /rare/;
}, 0.01);
note("rare: $calls calls, $most at most");
cmp_ok($calls, '<=', $most, 'a rare event comes under a short statement_timeout');

# Small events after large ones do not go to the room that those have left on their pages.
$node->safe_psql('postgres', q{INSERT INTO es_import (stream, type, data)
	SELECT 'large-' || i, 't', jsonb_build_object('text', repeat(md5(i::text), 50 + i % 20)) FROM generate_series(1, 500) AS i});
$node->safe_psql('postgres', 'VACUUM es_events');
$node->safe_psql('postgres', q{SELECT es_append('small-' || i, 'none', 'x') FROM generate_series(1, 100) AS i});
is_query($node, q{SELECT count(DISTINCT (ctid::text::point)[0]) < 10 FROM es_events WHERE es_category(stream) = 'small'},
	't', 'they go to the end');

# An error near the end leaves nothing behind, and no lock.
append_to_file($file, "account-1\t\t{}\n");
my ($result, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose
	\\copy es_import (stream, type, data) FROM PROGRAM 'tail -n 2000 $file'");
like($stderr, qr/ERROR:  22023: .*\n(?:.*\n)*CONTEXT:  (?:.*\n)*?COPY es_import, line 2000/m,
	'a bad row is refused, with its line');
is_query($node, 'SELECT count(*) FROM es_events', $rows + $added + 603, 'and nothing is stored');

# Imports one after the other, each of as many streams as it may lock by themselves: they leave the
# log to autovacuum, which freezes what the ones before have brought while they go on.
append_to_file("$folder/imports.sql",
	q{INSERT INTO es_import (stream, type) SELECT 'next-' || i % 1000, 't' FROM generate_series(1, 20000) AS i;});
my $vacuums = q{SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'es_events'};
my $before = $node->safe_psql('postgres', $vacuums);
my $offset = -s $node->logfile;
my $imports = IPC::Run::start([ 'pgbench', '-n', '-T', 600, '-f', "$folder/imports.sql", $node->connstr('postgres') ],
	'<', '/dev/null', '>', "$folder/imports.out", '2>&1');
wait_until('autovacuum comes again', sub { $node->safe_psql('postgres', $vacuums) > $before + 1 }, 0.5);
ok($imports->pumpable, 'it comes while imports go on');
$imports->kill_kill;
unlike(slurp_file($node->logfile, $offset), qr/skipping vacuum of "es_events"|canceling autovacuum task/, 'they neither keep it away nor cancel it');
$node->stop;
done_testing();
