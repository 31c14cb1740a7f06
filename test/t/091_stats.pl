# es_stats and es_inbox_stats: what is counted, and what is not, under rollback,
# savepoints, prepared transactions, batches, imports and load; restarts, crashes and
# damage; limits, two databases, reset; a server without the library.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreKills;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $folder = PostgreSQL::Test::Utils::tempdir();
my $preload = "shared_preload_libraries = 'eventstore'\nautovacuum = off\nrestart_after_crash = on\n";
my $node = new_store('stats', fsync => 'off', conf => $preload);

sub run
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database // 'postgres', $sql);
}

# Statements one after the other, each of which may fail.
sub try
{
	my ($sql) = @_;
	my (undef, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0);

	return $err;
}

my $columns = 'appends, events, conflicts, retries, duplicates, lock_waits';

# What has changed in the row of a category since the last call.
my %before;

sub counted
{
	my ($category, $expected, $name) = @_;
	my @now = split /\|/, run(qq{SELECT $columns FROM es_stats WHERE category = '$category'}) || '0|0|0|0|0|0';
	my @last = @{ $before{$category} // [ (0) x @now ] };

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', map { $now[$_] - $last[$_] } 0 .. $#now), $expected, $name);
	$before{$category} = \@now;
	return;
}

# What is committed in the log is what was counted: events and their bytes.
sub counts_are_those_of_the_log
{
	my ($name, $database) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( run(q{
			SELECT coalesce(s.category, l.category), s.events, l.events, s.bytes, l.bytes
			  FROM (SELECT * FROM es_stats WHERE events > 0) AS s
			  FULL JOIN (SELECT es_category(stream) AS category, count(*) AS events,
			                    sum(pg_column_size(data) - 1 + coalesce(pg_column_size(metadata) - 1, 0)) AS bytes
			               FROM es_events GROUP BY 1) AS l USING (category)
			 WHERE (s.events, s.bytes) IS DISTINCT FROM (l.events, l.bytes)}, $database),
		'', "$name: events and bytes are those of the log");
	return;
}

#
# What is counted, and when
#
# appends events conflicts retries duplicates lock_waits

is(run('SHOW eventstore.stats_categories'), '1000', 'the setting');
is(run('SELECT count(*) FROM es_stats'), '0', 'nothing is counted at first');

run(q{SELECT es_append('a-1', 'none', 'x', '{"n": 1}', '{"m": 2}')});
counted('a', '1 1 0 0 0 0', 'es_append');
run(q{SELECT es_append_batch('a-1', 1, '[{"type": "x"}, {"type": "y", "data": {"n": 1}}, {"type": "z"}]')});
counted('a', '1 3 0 0 0 0', 'es_append_batch');
run(q{SELECT es_append_batch('a-1', 'any', '{x,y}', '{"{}","{}"}')});
counted('a', '1 2 0 0 0 0', 'es_append_batch of arrays');
run(q{SELECT es_append_batch('a-1', 'any', '[]')});
counted('a', '0 0 0 0 0 0', 'an empty batch stores nothing');

run(q{BEGIN; SELECT es_append('a-1', 'any', 'x'); ROLLBACK});
counted('a', '0 0 0 0 0 0', 'rolled back');
is(run(q{BEGIN; SELECT es_append('a-1', 'any', 'x') IS NULL; SELECT appends FROM es_stats WHERE category = 'a'; COMMIT}),
	"f\n3", 'not before the commit');
counted('a', '1 1 0 0 0 0', 'committed');
run(q{SELECT es_append('', 'any', 'x') WHERE false; SELECT es_append('-1', 'any', 'x')});
counted('', '1 1 0 0 0 0', 'the category that is empty');

run(q{BEGIN;
	SELECT es_append('s-1', 'any', 'x');
	SAVEPOINT a;
	SELECT es_append('s-1', 'any', 'x'), es_append('t-1', 'any', 'x');
	SAVEPOINT b;
	SELECT es_append('s-1', 'any', 'x'), es_append('u-1', 'any', 'x');
	RELEASE b;
	ROLLBACK TO a;
	SELECT es_append('t-1', 'any', 'x');
	SAVEPOINT c;
	SELECT es_append('s-1', 'any', 'x'), es_append('u-1', 'any', 'x');
	RELEASE c;
	SAVEPOINT d;
	SELECT es_append('u-1', 'any', 'x');
	ROLLBACK TO d;
	COMMIT});
counted('s', '2 2 0 0 0 0', 'savepoints: before, and released');
counted('t', '1 1 0 0 0 0', 'savepoints: what was rolled back, and done again');
counted('u', '1 1 0 0 0 0', 'savepoints: one released, two rolled back');

run(q{BEGIN; SELECT es_append('p-1', 'any', 'x'); PREPARE TRANSACTION 'p'});
counted('p', '1 1 0 0 0 0', 'a prepared transaction counts at PREPARE');
run(q{COMMIT PREPARED 'p'});
counted('p', '0 0 0 0 0 0', '... and not again at COMMIT PREPARED');

run(q{INSERT INTO es_import (stream, type, id) SELECT 'i' || n % 2 || '-' || n, 'x', ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid
	FROM generate_series(1, 2500) AS n});
counted('i0', '1250 1250 0 0 0 0', 'es_import: each row');
counted('i1', '1250 1250 0 0 0 0', 'es_import: in its category');
run(q{INSERT INTO es_import (stream, type, id) SELECT 'i' || n % 2 || '-' || n, 'x', ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid
	FROM generate_series(2499, 2502) AS n});
counted('i0', '1 1 0 0 1 0', 'es_import: a row that is stored is a duplicate');

#
# Conflicts, retries, duplicates
#

my $id = '00000000-0000-0000-0001-000000000001';

like(try(q{SELECT es_append('c-1', 5, 'x')}), qr/wrong expected version/, 'a conflict');
counted('c', '0 0 1 0 0 0', 'a conflict is counted, though the transaction failed');
try(q{SELECT es_append('c-1', 5, 'x');
	SELECT es_append('c-2', 'any', 'x');
	SELECT es_append('c-1', 0, 'x');
	SELECT es_append('c-1', 1, 'x')});
counted('c', '3 3 1 1 0 0', 'coming back to the stream is one retry, other streams are none');
try(q{SELECT es_append('c-1', 5, 'x'); SELECT es_append('c-1', 5, 'x'); SELECT es_append('c-1', 5, 'x')});
counted('c', '0 0 3 2 0 0', 'three attempts are three conflicts and two retries');
run(qq{SELECT es_append('c-3', 'any', 'x', id => '$id')});
run(qq{SELECT es_append('c-3', 'none', 'x', id => '$id')});
counted('c', '1 1 0 0 1 0', 'a duplicate');
run(qq{BEGIN; SELECT es_append('c-3', 'none', 'x', id => '$id'); ROLLBACK});
counted('c', '0 0 0 0 1 0', 'a duplicate, whatever becomes of the transaction');
like(try(qq{SELECT es_append('c-4', 'any', 'x', id => '$id')}), qr/duplicate event/, 'an id of another stream');
counted('c', '0 0 0 0 0 0', '... is an error, and no duplicate');

run(q{CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN '[{"type": "x"}, {"type": "y"}]'::jsonb});
my $execute = q{SELECT es_execute('e-1', 'decide(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)', metadata => '{"command_id": "%s"}'%s)};

run(sprintf $execute, $id, '');
counted('e', '1 2 0 0 0 0', 'es_execute');
run(sprintf $execute, $id, '');
counted('e', '0 0 0 0 1 0', 'a command that was executed before is a duplicate');
try(sprintf $execute, '00000000-0000-0000-0001-000000000002', q{, expected => 7});
counted('e', '0 0 1 0 0 0', 'a command that expects another version is a conflict');
try(join ';', map { sprintf $execute, "00000000-0000-0000-0001-00000000000$_", ", expected => $_" } 3, 4, 2);
counted('e', '1 2 2 2 0 0', 'es_execute: conflict, or retry and success');

#
# Lock waits
#

{
	my $owner = $node->background_psql('postgres');
	my $waiter = $node->background_psql('postgres', on_error_stop => 0);
	my $time;

	$owner->query_safe(q{BEGIN; SELECT es_append('l-1', 'any', 'x')});
	$waiter->query(q{SET lock_timeout = '300ms'; SELECT es_append('l-1', 'any', 'x')});
	counted('l', '0 0 0 0 0 1', 'a wait that ended with an error');
	$time = run(q{SELECT lock_wait_time FROM es_stats WHERE category = 'l'});
	cmp_ok($time, '>=', 299, 'and its time, in milliseconds');
	cmp_ok($time, '<', 60000, 'which was not long');

	$waiter->query_until(qr/go/, "RESET lock_timeout;\n\\echo go\nSELECT es_append('l-1', 'any', 'x');\n");
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'});
	counted('l', '0 0 0 0 0 1', 'a wait counts as soon as it begins');
	$owner->query_safe('COMMIT');
	$waiter->query('SELECT 1');
	counted('l', '2 2 0 0 0 0', 'both have appended');
	cmp_ok(run(q{SELECT lock_wait_time FROM es_stats WHERE category = 'l'}), '>', $time, 'and the time has grown');
	$owner->query_safe(q{BEGIN; SELECT es_append('l-1', 'any', 'x'), es_append('l-1', 'any', 'x')});
	counted('l', '0 0 0 0 0 0', 'a transaction does not wait for its own lock');
	$owner->quit;
	$waiter->quit;
}

#
# The inbox
#

run(q{CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
	SELECT (payload, NULL, 'came', NULL, 'm-' || payload, NULL, NULL)::es_ack_event WHERE payload::int > 0 $$});

sub receive
{
	my ($payload, $more) = @_;

	return "SELECT es_receive('t', 'g', '$payload', 'on_message(text, jsonb)'" . ($more // '') . ');';
}

try(receive(1) . receive(2) . 'BEGIN;' . receive(3) . 'ROLLBACK;' . receive(1) . receive(1)
	  . receive(-1) . receive('bad') . receive('bad') . receive('bad', ', max_retries => 2, retry_count => 2'));
is(run(q{SELECT topic, group_id, acknowledged, skipped, failed, duplicates, errors FROM es_inbox_stats}),
	't|g|2|1|1|2|2', 'es_inbox_stats: each answer');
counted('m', '2 2 0 0 0 0', 'what a message appends counts in its category');
run(q{SELECT es_retry(id) FROM es_failures});
is(run(q{SELECT acknowledged, failed FROM es_inbox_stats}), '2|1', 'a message that failed again changes nothing');
run(q{CREATE OR REPLACE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event';
	SELECT es_retry(id) FROM es_failures});
is(run(q{SELECT acknowledged, skipped, failed FROM es_inbox_stats}), '2|2|1', 'one that is retried counts as it ends');

counts_are_those_of_the_log('after each case');

#
# Savepoints at random
#

use_seed();

sub random_transaction
{
	my @open;
	my $sql = 'BEGIN;';

	foreach my $step (1 .. 5 + int rand 30)
	{
		my $what = rand;

		if ($what < 0.5)
		{
			$sql .= sprintf q{SELECT es_append('r%d-%d', 'any', 'x', '{"n": %s}', %s);},
			  rand 4, rand 3, '1' x (1 + rand 8), rand() < 0.5 ? 'NULL' : q{'{"m": true}'};
		}
		elsif ($what < 0.7)
		{
			push @open, "s$step";
			$sql .= "SAVEPOINT s$step;";
		}
		elsif (@open)
		{
			my $at = int rand @open;

			$sql .= ($what < 0.85 ? 'RELEASE ' : 'ROLLBACK TO ') . "$open[$at];";
			splice @open, $what < 0.85 ? $at : $at + 1;
		}
	}
	return $sql . (rand() < 0.7 ? 'COMMIT;' : 'ROLLBACK;');
}

run(join "\n", map { random_transaction() } 1 .. 200);
counts_are_those_of_the_log('savepoints at random');

#
# Many at once
#

append_to_file("$folder/append.sql", q{
\set stream random(1, 5)
\set category random(1, 3)
SELECT * FROM es_append('q' || :category || '-' || :stream, 'any', 'x');
});
append_to_file("$folder/conflict.sql", q{
\set stream random(1, 500)
SELECT conflict('z-' || :stream);
});
run(q{CREATE FUNCTION conflict(stream text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN PERFORM es_append(stream, 'none', 'x'); EXCEPTION WHEN SQLSTATE 'ES001' THEN NULL; END $$});
$node->pgbench('-n -c 12 -t 400 -M prepared', 0, [qr/processed: 4800\/4800/], [],
	'pgbench: 12 clients', undef, '-f', "$folder/append.sql");
is(run(q{SELECT sum(appends), sum(events) FROM es_stats WHERE category LIKE 'q_'}), '4800|4800', '4,800 appends are counted');
cmp_ok(run(q{SELECT sum(lock_waits) FROM es_stats WHERE category LIKE 'q_'}), '>', 0, 'and some have waited');
$node->pgbench('-n -c 8 -t 500', 0, [qr/processed: 4000\/4000/], [],
	'pgbench: 8 clients with conflicts', undef, '-f', "$folder/conflict.sql");
is(run(q{SELECT appends + conflicts, appends = (SELECT count(*) FROM es_events WHERE es_category(stream) = 'z') FROM es_stats WHERE category = 'z'}),
	'4000|t', 'each of 4,000 calls was an append or a conflict');
counts_are_those_of_the_log('many at once');

#
# Restarts and crashes
#

# All counters, and whether the server's own are still there.
sub all_counts
{
	return run(q{SELECT md5(string_agg(s::text, '|' ORDER BY category)) FROM es_stats AS s}) . run(q{SELECT * FROM es_inbox_stats});
}

sub servers_own
{
	return run(q{SELECT n_tup_ins > 0 FROM pg_stat_user_tables WHERE relname = 'es_events'});
}

my $file = $node->data_dir . '/pg_stat/eventstore.stat';

foreach my $mode ('fast', 'smart')
{
	my $counts = all_counts();

	ok(!-e $file, 'there is no file while the server runs');
	$node->stop($mode);
	ok(-e $file, "$mode stop: there is one");
	$node->start;
	is(all_counts(), $counts, "$mode stop: the counters stay");
	is(servers_own(), 't', "... as the server's own do");
}
run(q{SELECT es_append('a-1', 'any', 'x')});
counted('a', '1 1 0 0 0 0', 'and go on');
is(run('SELECT count(*), sum(events) = (SELECT count(*) FROM es_events) FROM es_stats WHERE events > 0'),
	run('SELECT count(DISTINCT es_category(stream)) FROM es_events') . '|t', 'no category is there twice');

sub crash_backend
{
	my $victim = $node->background_psql('postgres', on_error_stop => 0);
	my $offset = -s $node->logfile;

	kill_process($victim->query_safe('SELECT pg_backend_pid()'));
	wait_for_restart($node, $offset);
	eval { $victim->quit };
	return;
}

my %crash = (
	'immediate stop' => sub { $node->stop('immediate'); $node->start },
	'crash of a process' => \&crash_backend);

foreach my $how (sort keys %crash)
{
	run(q{SELECT es_append('k-1', 'any', 'x')});
	$crash{$how}->();
	is(run('SELECT count(*) FROM es_stats') . run('SELECT count(*) FROM es_inbox_stats'), '00', "$how: the counters are zero");
	is(servers_own(), 'f', "... as the server's own are");
	run(q{SELECT es_append('k-1', 'any', 'x')});
	is(run('SELECT category, appends FROM es_stats'), 'k|1', "$how: and begin anew");
	$node->restart;
	is(run('SELECT category, appends FROM es_stats'), 'k|1', "$how: and count again");
}

#
# A damaged file
#

my %damage = (
	'a byte' => sub { my $all = slurp_file($file); substr($all, 100, 1) ^= "\x01"; return $all },
	'the end' => sub { return substr(slurp_file($file), 0, -1) },
	'the header' => sub { return 'x' . substr(slurp_file($file), 1) },
	'all of it' => sub { return '' });

foreach my $what (sort keys %damage)
{
	my $log = -s $node->logfile;
	my $bytes;

	run(q{SELECT es_append('k-1', 'any', 'x')});
	$node->stop;
	$bytes = $damage{$what}->();
	open my $out, '>:raw', $file or die "$file: $!";
	print $out $bytes;
	close $out;
	$node->start;
	like(slurp_file($node->logfile, $log), qr/LOG: .*ignoring invalid data in file "pg_stat\/eventstore.stat"/, "$what of the file is damaged: the log says so");
	is(run('SELECT count(*) FROM es_stats'), '0', '... and counters begin anew');
	ok(!-e $file, '... without the file');
}

#
# Two databases, reset
#

run('CREATE DATABASE other');
run('CREATE EXTENSION eventstore', 'other');
run(q{SELECT es_append('k-1', 'any', 'x'), es_append('n-1', 'any', 'x')});
run(q{SELECT es_append('k-1', 'any', 'x')}, 'other');
is(run('SELECT category, appends FROM es_stats ORDER BY 1'), "k|1\nn|1", 'a database has its own counters');
is(run('SELECT category, appends FROM es_stats', 'other'), 'k|1', '... and another one, too');
my $since = run(q{SELECT stats_reset FROM es_stats WHERE category = 'k'});
run('SELECT es_stats_reset()');
is(run('SELECT category, appends, events, bytes FROM es_stats ORDER BY 1'), "k|0|0|0\nn|0|0|0", 'es_stats_reset sets them to zero');
is(run(qq{SELECT stats_reset > '$since' FROM es_stats WHERE category = 'k'}), 't', '... and says since when they count');
is(run('SELECT category, appends FROM es_stats', 'other'), 'k|1', '... in this database only');
$node->restart;
is(run('SELECT category, appends FROM es_stats', 'other'), 'k|1', 'those of both survive a restart');

#
# More categories than there are places
#

run('SELECT es_stats_reset()');
$node->append_conf('postgresql.conf', 'eventstore.stats_categories = 4');
$node->restart;

# k and n, and k of the other database, take three of them
run(q{SELECT es_append('v' || n % 50 || '-1', 'any', 'x') FROM generate_series(1, 300) AS n});
is(run('SELECT category, appends FROM es_stats ORDER BY 1'), "k|0\nn|0\nv1|6\n|294", 'what finds no place is counted together');
try(q{SELECT es_append('v7-1', 99, 'x')});
is(run('SELECT conflicts FROM es_stats WHERE category IS NULL'), '1', '... its conflicts, too');
run(q{SELECT es_append('v1-1', 'any', 'x'), es_append('w-1', 'any', 'x')}, 'other');
is(run('SELECT category, appends FROM es_stats ORDER BY 1', 'other'), "k|1\n|2", '... for each database');
$node->restart;
is(run('SELECT category, appends FROM es_stats ORDER BY 1'), "k|0\nn|0\nv1|6\n|294", 'that survives a restart');
is(run('SELECT category, appends FROM es_stats ORDER BY 1', 'other'), "k|1\n|2", '... in each database');
$node->append_conf('postgresql.conf', 'eventstore.stats_categories = 1');
$node->restart;
is(run('SELECT sum(appends), count(*) FROM es_stats') . ' ' . run('SELECT sum(appends), count(*) FROM es_stats', 'other'), '300|2 3|1',
	'with a smaller setting the rest is counted together');

run('DROP DATABASE other');
$node->append_conf('postgresql.conf', 'eventstore.stats_categories = 3');
$node->restart;
run(q{SELECT es_stats_reset(); SELECT es_append('x' || n || '-1', 'any', 'x') FROM generate_series(1, 2) AS n});
is(run('SELECT category, appends FROM es_stats ORDER BY 1'), "k|0\nx1|1\nx2|1\n|0", 'a new one has the place that is left');

# Places of a database that is gone are free after a restart.
run('CREATE DATABASE other');
run('CREATE EXTENSION eventstore', 'other');
$node->append_conf('postgresql.conf', 'eventstore.stats_categories = 6');
$node->restart;
run(q{SELECT es_append('o' || n || '-1', 'any', 'x') FROM generate_series(1, 5) AS n}, 'other');
is(run('SELECT count(*) FILTER (WHERE category IS NULL), count(category) FROM es_stats', 'other'), '1|3', 'another database fills it');
run('DROP DATABASE other');
$node->restart;
run(q{SELECT es_append('y' || n || '-1', 'any', 'x') FROM generate_series(1, 4) AS n});
is(run('SELECT category, appends FROM es_stats ORDER BY 1'), "k|0\nx1|1\nx2|1\ny1|1\ny2|1\ny3|1\n|1", '... and leaves its places when it is dropped');

# Names that are long, and that are not cut within a character.
$node->append_conf('postgresql.conf', 'eventstore.stats_categories = 100');
$node->restart;
run(q{SELECT es_append(repeat('x', length) || '-1', 'any', 'x'), es_append(repeat('ä', length) || '-1', 'any', 'x')
	FROM unnest(ARRAY[127, 128, 129, 1000]) AS length});
is(run(q{SELECT count(*), count(DISTINCT category), sum(appends), max(octet_length(category)) FROM es_stats WHERE category ~ '^(xx|ää)'}),
	'8|8|8|127', 'long names are cut, and differ');
is(run(q{SELECT count(*) FROM es_stats WHERE category ~ '^(x{110}|ä{55})#[0-9a-f]{16}$'}), '7', '... by a hash');

#
# Without counting
#

$node->append_conf('postgresql.conf', 'eventstore.stats_categories = 0');
$node->restart;
run(q{SELECT es_append('k-1', 'any', 'x')});
is(run('SELECT count(*) FROM es_stats'), '0', 'with 0 categories nothing is counted');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
run(q{SELECT es_append('k-1', 'any', 'x')});
like(try(q{SELECT es_append('k-1', 0, 'x')}), qr/wrong expected version/, 'without shared_preload_libraries it works the same');
is(run('SELECT count(*) FROM es_stats') . run('SELECT count(*) FROM es_inbox_stats') . run('SELECT es_stats_reset()'), '00', '... and counts nothing');

#
# Standby
#

$node->stop;
my $primary = new_store('primary', fsync => 'off', streaming => 1, conf => $preload);
$primary->safe_psql('postgres', q{SELECT es_append('k-1', 'any', 'x')});
my $standby = new_standby($primary);
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT count(*) FROM es_stats'), '0', 'a standby counts nothing');
is($standby->safe_psql('postgres', 'SELECT es_stats_reset()'), '', '... and can be reset');
$standby->restart;
$standby->promote;
$standby->safe_psql('postgres', q{SELECT es_append('k-1', 'any', 'x')});
is($standby->safe_psql('postgres', 'SELECT category, appends FROM es_stats'), 'k|1', 'after its promotion it counts');
$standby->restart;
is($standby->safe_psql('postgres', 'SELECT category, appends FROM es_stats'), 'k|1', '... and they stay');
$standby->stop;

#
# Wait events
#

{
	my $named = $primary->safe_psql('postgres', 'SHOW server_version_num') >= 170000;
	my $poll = $primary->background_psql('postgres');

	$primary->append_conf('postgresql.conf', "eventstore.databases = 'postgres'\neventstore.poll_interval = 1min");
	$primary->restart;
	$poll = $primary->background_psql('postgres');
	$primary->safe_psql('postgres', q{SELECT es_create_subscription('s', category => 'none')});
	$poll->query_until(qr/go/, "\\echo go\nSELECT es_poll('s', wait => '60 s');\n");
	foreach my $wait ([ 'client backend', 'EventstorePoll' ], [ 'eventstore worker', 'EventstoreWorkerIdle' ],
		[ 'eventstore launcher', 'EventstoreLauncher' ])
	{
		my $event = $named ? $wait->[1] : 'Extension';

		ok($primary->poll_query_until('postgres', qq{
				SELECT count(*) > 0 FROM pg_stat_activity
				 WHERE backend_type = '$wait->[0]' AND wait_event_type = 'Extension' AND wait_event = '$event'}),
			"$wait->[0] waits as $event");
	}
	$primary->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%es_poll(%' AND pid <> pg_backend_pid()});
	eval { $poll->quit };
}
$primary->stop;
done_testing();
