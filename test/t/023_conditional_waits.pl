# Waits of conditional appends and of queries by tags: how they end, and what their errors
# say; prepared transactions and lost connections; more locks than there may be; and what a
# query of very many events keeps in memory.
use strict;
use warnings;

use lib 't';
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use EventStoreTest;
use EventStoreWaits;

my $node = new_store('waits', fsync => 'off', conf => 'deadlock_timeout = 60s');
my $made = q{'[{"type": "made", "tags": ["z"]}]'};
my $if_tag = qq{SELECT es_append_if($made, '[{"tags": ["x"]}]')};
my $if_type = qq{SELECT es_append_if($made, '[{"types": ["new"]}]')};
my $with_tag = q{SELECT version FROM es_append('a-1', 'any', 'plain', tags => '{w,x}')};
my $without = q{SELECT version FROM es_append('b-1', 'any', 'plain')};
my $query = q{SELECT count(*) FROM es_query('[{"tags": ["x"]}]')};
my $many = q{INSERT INTO es_import (stream, type, tags) SELECT 'i-1', 'plain', ARRAY['i' || n] FROM generate_series(1, 1100) AS n};
my $insert = q{INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data, tags)
	VALUES (100000, 1, '3', now(), gen_random_uuid(), 'o-1', 'plain', '{}', '{x}')};
my $holder = $node->background_psql('postgres');
my $holder_pid = $holder->query_safe('SELECT pg_backend_pid()');

sub hold
{
	$holder->query_safe('BEGIN');
	$holder->query_safe($_[0]);
	return;
}

sub let_go
{
	$holder->query_safe('ROLLBACK');
	return;
}

# A call that waits for the holder.
sub waiting_call
{
	my $call = start_call($node, $_[0]);

	call_waits_for($node, $holder_pid);
	return $call;
}

#
# Errors that end a wait name what is waited for, and nothing is stored.
#

foreach my $case (
	[ 'an append, for an append', $with_tag, $with_tag =~ s/a-1/c-1/r, 'tag "w"' ],
	[ 'a condition, for an append', $with_tag, $if_tag, 'tag "x"' ],
	[ 'a query, for an append', $with_tag, $query, 'tag "x"' ],
	[ 'an append, for a condition', $if_tag, $with_tag, 'tag "x"' ],
	[ 'an INSERT by the owner, for a condition', $if_tag, $insert, 'tag "x"' ],
	[ 'a condition without tags, for another', $if_type, $if_type =~ s/"z"/"y"/r, 'conditions on "es_events"' ],
	[ 'a condition without tags, for an append', $without, $if_type, 'table "es_events" to append under a condition' ],
	[ 'a condition, for an import', $many, $if_tag, 'table "es_events"' ],
	[ 'a query, for an import', $many, $query, 'table "es_events"' ],
	[ 'an INSERT by the owner, for an import', $many, $insert, undef ])
{
	my ($name, $held, $wait, $context) = @$case;

	hold($held);
	foreach my $end ([ 'lock_timeout', '55P03' ], [ 'statement_timeout', '57014' ])
	{
		my ($errors) = end_call(start_call($node, "SET $end->[0] = '300ms'; $wait"));

		like($errors, qr/ERROR:  $end->[1]: canceling statement due to/, "$name: $end->[0]");
		like($errors, qr/CONTEXT:  while locking \Q$context\E$/m, 'says for what it waited') if defined $context;
	}
	let_go();
	is_query($node, 'SELECT count(*) FROM es_events', '0', 'nothing is stored');
}

# An index that is made concurrently has a lock on the log, and draws no position.
hold('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1');
{
	my $call = waiting_call('CREATE INDEX CONCURRENTLY later ON es_events (recorded_at)');

	unlike((end_call(start_call($node, "SET lock_timeout = '30s'; $if_type")))[0], qr/ERROR/, 'a condition does not wait for an index');
	let_go();
	unlike((end_call($call))[0], qr/ERROR/, 'which is made');
}
sql($node, 'DROP EXTENSION eventstore', 'CREATE EXTENSION eventstore');

#
# Cancelled and terminated, on both sides
#

hold($with_tag);
foreach my $end ([ 'pg_cancel_backend', '57014' ], [ 'pg_terminate_backend', '57P01' ])
{
	foreach my $wait ($if_tag, $query)
	{
		my $call = waiting_call($wait);

		sql($node, "SELECT $end->[0](pid) FROM pg_stat_activity WHERE application_name = 'call'");
		my ($errors) = end_call($call);
		like($errors, qr/(?:ERROR|FATAL):  $end->[1]: /, "$end->[0] ends a wait");
	}
}
is_query($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> $holder_pid", '0', 'no lock is left');
{
	my $call = waiting_call($if_tag);

	sql($node, "SELECT pg_terminate_backend($holder_pid)");
	unlike((end_call($call))[0], qr/ERROR/, 'a condition goes on when the session is gone for which it waits');
}
eval { $holder->quit };
$holder = $node->background_psql('postgres');
$holder_pid = $holder->query_safe('SELECT pg_backend_pid()');
is_query($node, q{SELECT string_agg(type || ' ' || tags::text, ', ') FROM es_events}, 'made {z}', 'and has stored its event alone');

#
# A wait that is caught leaves the transaction as it was.
#

hold($with_tag);
{
	my $call = start_call($node, qq{DO \$\$ BEGIN
		PERFORM es_append('d-1', 'any', 'before', tags => '{v}');
		SET LOCAL lock_timeout = '300ms';
		BEGIN PERFORM es_append_if($made, '[{"tags": ["x"]}]'); EXCEPTION WHEN lock_not_available THEN NULL; END;
		BEGIN PERFORM * FROM es_query('[{"tags": ["x"]}]'); EXCEPTION WHEN lock_not_available THEN RAISE NOTICE 'caught'; END;
		SET LOCAL lock_timeout = 0;
		BEGIN PERFORM es_append_if($made, '[{"tags": ["x"]}]'); EXCEPTION WHEN SQLSTATE 'ES007' THEN RAISE NOTICE 'it matches'; END;
		PERFORM es_append_if($made, '[{"tags": ["x"]}]', (SELECT max(position) FROM es_query('[{"tags": ["x"]}]')));
		END \$\$});

	wait_until('it is caught', sub { slurp_file("$call->{file}.err") =~ /caught/ });
	call_waits_for($node, $holder_pid);
	$holder->query_safe('COMMIT');
	my ($errors) = end_call($call);
	unlike($errors, qr/ERROR/, 'timeouts that were caught are not the end');
	like($errors, qr/it matches/, 'nor is a condition that does not hold');
}
is_query($node, q{SELECT string_agg(stream || ' ' || version, ', ' ORDER BY position) FROM es_events WHERE type <> 'made' OR version > 1},
	'a-1 1, d-1 1, event-z 2', 'what was stored before and after is');

#
# Prepared transactions, which outlive a restart: of an append with tags, of a condition
#

sql($node, "BEGIN; $with_tag; PREPARE TRANSACTION 'append'");
sql($node, q{BEGIN; SELECT es_append_if('[{"type": "made", "stream": "p-1"}]', '[{"tags": ["held"]}]'); PREPARE TRANSACTION 'condition'});
$holder->quit;
foreach my $when ('prepared', 'after a restart')
{
	foreach my $wait ($if_tag, $query, q{SELECT es_append('q-1', 'any', 'plain', tags => '{held}')}, $if_type)
	{
		like((end_call(start_call($node, "SET lock_timeout = '300ms'; $wait")))[0], qr/ERROR:  55P03: /, "$when: waits");
	}
	unlike((end_call(start_call($node, "SET lock_timeout = '60s'; $without; SELECT * FROM es_query('[{\"tags\": [\"held\"]}]')")))[0], qr/ERROR/,
		'other appends, and readers of what a condition holds, do not');
	if ($when eq 'prepared')
	{
		$node->stop('immediate');
		$node->start;
	}
}
sql($node, "COMMIT PREPARED 'append'");
sql($node, "ROLLBACK PREPARED 'condition'");
like((end_call(start_call($node, $if_tag)))[0], qr/ERROR:  ES007: /, 'what was prepared matches when it is committed');
unlike((end_call(start_call($node, q{SET lock_timeout = '60s'; SELECT es_append('q-1', 'any', 'plain', tags => '{held}')})))[0], qr/ERROR/,
	'a condition that was rolled back holds nothing');

#
# More locks than there may be: the whole log is locked instead.
#

$holder = $node->background_psql('postgres');
$holder_pid = $holder->query_safe('SELECT pg_backend_pid()');
my $events = q{(SELECT jsonb_agg(jsonb_build_object('type', 'many', 'stream', 'many-' || n % 10,
	'tags', (SELECT jsonb_agg('m' || n || ':' || t) FROM generate_series(1, 64) AS t))) FROM generate_series(1, 1000) AS n)};
hold(qq{SELECT es_append_if($events, '[{"tags": ["m1:1", "m1:2"]}, {"types": ["many"]}]')});
is_query($node, "SELECT string_agg(mode, ', ' ORDER BY mode) FROM pg_locks WHERE relation = 'es_events'::regclass AND pid = $holder_pid AND mode <> 'AccessShareLock'",
	'RowExclusiveLock, ShareRowExclusiveLock', 'an append of 64,000 tags locks the whole log');
is_query($node, "SELECT count(*) < 1000 FROM pg_locks WHERE locktype = 'advisory' AND pid = $holder_pid", 't', 'and not its tags');
{
	my $call = waiting_call(q{SELECT es_append_if('[{"type": "late", "tags": ["late"]}]', '[{"tags": ["m500:7"]}]')});

	is_query($node, q{SELECT count(*) FROM es_query('[{"types": ["many"]}]')}, '0', 'readers of the horizon go on');
	$holder->query_safe('COMMIT');
	like((end_call($call))[0], qr/ERROR:  ES007: /, 'a condition waits for it, and does not hold');
}
is_query($node, q{SELECT count(*), (SELECT count(*) FROM es_query('[{"tags": ["m500:7", "m500:64"]}]')) FROM es_tags WHERE type = 'many'}, '64000|1',
	'all entries are there');
hold(qq{SELECT es_append_if($events, '[{"types": ["many"]}]', (SELECT max(position) FROM es_events))});
is_query($node, q{SELECT count(*) FROM es_query('[{"types": ["many"]}]')}, '1000', 'a condition without tags needs no wait then');
let_go();
$holder->quit;

#
# As many scans as there may be, of pages that are not known to be visible to all: the time is
# compared with that after a VACUUM. Where each scan kept its page pinned it took ten times as long.
#

sql($node, 'ALTER TABLE es_tags SET (autovacuum_enabled = off)',
	q{INSERT INTO es_import (stream, type, tags) SELECT 'w-1', 'wide', (SELECT array_agg('w' || t) FROM generate_series(1, 64) AS t) FROM generate_series(1, 300)});
my $wide = q{SELECT count(*) FROM es_query((SELECT jsonb_agg(jsonb_build_object('tags', (SELECT jsonb_agg('w' || t) FROM generate_series(1, 64) AS t WHERE t <> i)))
	FROM generate_series(1, 64) AS i))};
my @seconds = map {
	sql($node, $_);
	my $began = time();

	is_query($node, $wide, '300', 'a query of 64 items with 63 tags each');
	time() - $began
} ('SELECT 1', 'VACUUM es_tags');
diag(sprintf 'the widest query: %.1f s, and %.1f s after VACUUM', @seconds);
cmp_ok($seconds[0], '<', 1 + 4 * $seconds[1], 'takes not much longer than after VACUUM');
sql($node, 'ALTER TABLE es_tags RESET (autovacuum_enabled)');

#
# What a query of many events keeps in memory: one chunk; the rest is in files.
#

sql($node, q{INSERT INTO es_import (stream, type, tags) 
	SELECT 'l-' || n % 100, 'large', CASE WHEN n % 1000 = 7 THEN '{large,rare}'::text[] ELSE '{large}' END FROM generate_series(1, 100000) AS n},
	'CREATE ROLE reader', q{SELECT es_grant('reader', 'reader')},
	'ALTER TABLE es_events ENABLE ROW LEVEL SECURITY', 'CREATE POLICY odd ON es_events TO reader USING (position % 2 = 1)');
foreach my $role ('postgres', 'reader')
{
	my @lines = split /\n/, sql($node, "SET SESSION AUTHORIZATION DEFAULT", "SET work_mem = '1MB'", 'SET log_temp_files = -1',
		'GRANT pg_read_all_stats TO reader', $role eq 'reader' ? 'SET ROLE reader' : 'RESET ROLE', 'BEGIN',
		q{DECLARE c CURSOR FOR SELECT position FROM es_query('[{"tags": ["large"]}]')}, 'FETCH 1 FROM c',
		q{SELECT sum(used_bytes) < 6 * 1048576 FROM pg_backend_memory_contexts}, 'MOVE FORWARD ALL FROM c', 'COMMIT');
	is($lines[-1], 't', "little of 100,000 events is in memory, of role $role");
}
is_query($node, q{SET ROLE reader; SELECT count(*) BETWEEN 49999 AND 50001 FROM es_query('[{"tags": ["large"]}]')}, 't', 'row security hides half of them');
foreach my $backward ('false', 'true')
{
	is_query($node, qq{SELECT count(*), count(*) FILTER (WHERE tags = '{large,rare}') FROM es_query('[{"tags": ["large", "rare"]}]', backward => $backward)},
		'100|100', "a rare tag beside a frequent one, backward $backward");
}
is_query($node, 'SELECT temp_bytes > 10 * 1048576 FROM pg_stat_database WHERE datname = current_database()', 't', 'they are in files');

done_testing();
