# es_reset: what an emptied store has in each table, beside a new one with the same definitions;
# whom it waits for, and whom it refuses; what other sessions remember of the log before; crashes,
# standbys and dumps; how long it takes.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_store('tests', streaming => 1, conf => "eventstore.test_mode = on\nwal_level = logical\n");

#
# Each table
#

# What is defined, and stays.
my $definitions = <<'END';
CREATE TABLE at_once (position bigint); CREATE TABLE later (position bigint); CREATE TABLE broken (position bigint);
SELECT es_create_projection('at_once', mode => 'sync', tables => '{at_once}', query => 'INSERT INTO at_once SELECT position FROM new_events'),
	es_create_projection('later', tables => '{later}', query => 'INSERT INTO later SELECT position FROM new_events'),
	es_create_projection('broken', tables => '{broken}', query => 'INSERT INTO broken SELECT position / (position - 9) FROM new_events', max_attempts => 1),
	es_create_projection('parks', types => '{paid}', on_failure => 'park', max_attempts => 1, query => 'SELECT 1 / (position - 9) FROM new_events'),
	es_create_projection('still', query => 'SELECT FROM new_events');
SELECT es_pause_projection('still');
CREATE FUNCTION paid_from_1(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data || '{"to": "x"}' $$;
SELECT es_define_event_type('paid', category => 'parcel', schema_version => 2), es_define_upcaster('paid', 1, 'paid_from_1', category => 'parcel');
SELECT es_define_event_type('joined', personal => '{name}');
SELECT es_create_subscription('consumer', partitions => 3, lease => '1 hour'), es_create_subscription('now', start_position => NULL);
SELECT es_set_retention('trimmed', max_count => 1), es_set_retention('kept', max_age => '1 year');
CREATE FUNCTION on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
	SELECT payload, NULL::timestamptz, 'paid', 'v1', 'payment-' || payload, NULL, '{payment}'::text[] $$;
CREATE FUNCTION fails(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$no$$; END';
END

# What is done: each table that is not one of definitions alone gets rows, or changes.
my $work = <<'END';
SELECT count(es_append('account-' || i % 5, 'any', 'paid', jsonb_build_object('n', i), tags => ARRAY['tag:' || i])) FROM generate_series(1, 40) i;
SELECT count(es_append('trimmed-1', 'any', 'x')) FROM generate_series(1, 4);
SELECT es_rewrite(id, '{"n": 0}') FROM es_events WHERE position = 1;
SELECT es_run_projections();
SELECT es_nack('consumer', max(token), min(position), 'no', 'park') FROM es_poll('consumer', 'ann', 10);
SELECT count(*) FROM es_poll('now', 'bob');
SELECT es_skip_event('later', 2, 'not wanted');
SELECT count(es_receive('payments', 'shop', i::text, 'on_payment(text, jsonb)')) FROM generate_series(1, 3) i;
SELECT es_receive('payments', 'broken', '1', 'fails(text, jsonb)', max_retries => 0);
SELECT es_snapshot('account-1', 'es_merge');
INSERT INTO es_notified (position) VALUES (1);
INSERT INTO es_published_horizon VALUES (1, es_incarnation());
SELECT count(*) FROM es_run_retention(force => true);
SELECT es_delete_stream('account-2', 'any'), es_archive_stream('account-3');
SELECT count(es_append('person-' || i, 'none', 'joined', '{"name": "Ann"}')) FROM generate_series(1, 2) i;
SELECT count(*) FROM es_erase_subject('2');
END

# Changed by definitions alone, or by CREATE EXTENSION.
my %only_defined = map { $_ => 1 } qw(es_event_types es_upcasters es_personal_attributes es_identity es_user_definitions);

# What is the same in no two stores.
my %never_the_same = map { $_ => 1 } qw(es_identity es_incarnation_entries es_user_definitions);

sub own_relations
{
	my ($database, $kind) = @_;

	return split /\n/, $node->safe_psql($database, qq{
		SELECT c.relname FROM pg_depend d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
		  JOIN pg_extension x ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid AND d.deptype = 'e'
		 WHERE x.extname = 'eventstore' AND c.relkind = '$kind' ORDER BY 1});
}

# The rows of a table, but for the times at which it was defined.
sub rows_of
{
	my ($database, $table) = @_;
	my $row = q{(to_jsonb(t) - '{created_at,defined_at,set_at,next_run,paused_at}'::text[])::text};

	return $node->safe_psql($database, "SELECT $row FROM $table t ORDER BY $row COLLATE \"C\"");
}

# A definition that was made at the end of the log would have been made at its begin.
my $last = q{SELECT es_create_subscription('last', start_position => NULL)};

foreach my $database (qw(fresh worked))
{
	create_database($node, $database, 'public');
	$node->safe_psql($database, "CREATE EXTENSION eventstore; $definitions");
}
$node->safe_psql('fresh', $last);
my @tables = own_relations('fresh', 'r');
my %kept   = map { $_ => rows_of('worked', $_) } qw(es_identity);

$node->safe_psql('worked', "$work; $last");
foreach my $table (grep { !$only_defined{$_} } @tables)
{
	isnt(rows_of('worked', $table), rows_of('fresh', $table), "$table has changed before the store is emptied");
}
$node->safe_psql('worked', 'SELECT es_reset()');
foreach my $table (grep { !$never_the_same{$_} } @tables)
{
	is(rows_of('worked', $table), rows_of('fresh', $table), "$table is that of a new store");
}
is(rows_of('worked', $_), $kept{$_}, "$_ is as before") foreach keys %kept;
# what a dump says of it: there, that of the incarnation is one row more
is($node->safe_psql('worked', q{SELECT replace(definitions::text, '"es_incarnation_entries": 1', '"es_incarnation_entries": 0') FROM es_user_definitions}),
	$node->safe_psql('fresh', 'SELECT definitions::text FROM es_user_definitions'), 'a dump has the same');
is($node->safe_psql('worked', 'SELECT number, position, reason FROM es_incarnation_entries'), '2|0|reset', 'an incarnation has begun');
foreach my $sequence (own_relations('worked', 'S'))
{
	is($node->safe_psql('worked', "SELECT last_value, is_called FROM $sequence"), '1|f', "$sequence begins at 1");
}
is($node->safe_psql('worked', 'SELECT count(*) FROM at_once, later, broken'), '0', 'read models are empty');
is($node->safe_psql('worked', q{SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM es_projections}),
	'at_once running, broken running, later running, parks running, still paused', 'what has failed runs, what is paused does not');

# It works as a new one does.
my $same = q{SELECT position, version, stream, type, data, tags FROM es_events UNION ALL
	SELECT position, version, stream, type, data, tags FROM es_archived_events UNION ALL
	SELECT position, NULL, projection, coalesce(subscription, topic), NULL, NULL FROM es_failures ORDER BY 1, 2, 3, 4};
$node->safe_psql($_, $work) foreach qw(worked fresh);
is($node->safe_psql('worked', $same), $node->safe_psql('fresh', $same), 'the same work has the same results');

#
# Others
#

sub reset_says
{
	my ($database) = @_;
	my ($rc, $out, $err) = $node->psql($database // 'postgres', 'SELECT es_reset()');

	$err =~ s/^psql:<stdin>:\d+: //mg;
	return $rc == 0 ? 'done' : $err;
}

my $other = $node->background_psql('postgres');
my $pid   = $other->query_safe('SELECT pg_backend_pid()');

$node->safe_psql('postgres', q{CREATE TABLE seen (position bigint);
	SELECT es_create_projection('seen', tables => '{seen}', query => 'INSERT INTO seen SELECT position FROM new_events'),
		es_create_subscription('many', partitions => 16, lease => '1 hour')});
foreach my $use (
	[ 'reads the log',       'SELECT count(*) FROM es_events', 'es_events' ],
	[ 'appends',             q{SELECT es_append('a-1', 'any', 'x')}, 'es_events' ],
	[ 'reads a read model',  'SELECT count(*) FROM seen', 'seen' ],
	[ 'looks at its status', 'SELECT count(*) FROM es_projections', 'es_projections' ])
{
	my ($what, $sql, $table) = @$use;
	my $begun = time();

	$other->query_safe("BEGIN; $sql");
	like(reset_says(), qr/the store is used by another session, and cannot be emptied\nDETAIL:  Process $pid of role ".+" has a lock on table "$table"\./,
		"beside a transaction that $what: refused");
	cmp_ok(time() - $begun, '>=', 1, 'after a second');
	$other->query_safe('COMMIT');
	is(reset_says(), 'done', 'not when it has ended');
}

# One that ends in time is waited for.
$other->query_safe('BEGIN; SELECT count(*) FROM es_events');
my $reset = $node->background_psql('postgres');
$reset->query_until(qr/begun/, "\\echo begun\nSELECT es_reset();\n\\echo done\n");
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'SELECT es_reset%' AND state = 'active'}), 'it waits');
$other->query_safe('COMMIT');
like($reset->query_safe('SELECT 1'), qr/done\n1$/, 'for a transaction that ends');
$reset->quit;

$node->safe_psql('postgres', q{BEGIN; SELECT es_append('a-1', 'any', 'x'); PREPARE TRANSACTION 'p'});
like(reset_says(), qr/used by another session.*\nDETAIL:  A prepared transaction has a lock on table "es_events"/, 'beside a prepared transaction: refused');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'p'});

$node->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('decodes', 'pgoutput')});
like(reset_says(), qr/the store is published, and cannot be emptied\nDETAIL:  Replication slot "decodes" decodes its changes/, 'beside a logical slot: refused');
is(reset_says('worked'), 'done', 'not beside one of another database');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('decodes')});

#
# What a session remembers
#

# Everything that sessions keep: versions and ids, places in indexes, the horizon, snapshots,
# partitions of a subscription with many, the incarnation, keys of persons.
my $remember = q{
	SELECT string_agg(concat_ws(' ', (a.e).version, (a.e).position), ',') FROM (SELECT es_append('s-' || i % 3, 'any', 'x') AS e FROM generate_series(1, 50) i OFFSET 0) a;
	SELECT es_horizon(), count(*), max(version) FROM es_load('s-1');
	SELECT version FROM es_state('s-1', 'es_merge');
	SELECT es_run_projections('seen');
	SELECT es_ack('many', token) FROM (SELECT token FROM es_poll('many', 'ann', 9) GROUP BY 1) d;
	SELECT es_ack('many', token) FROM (SELECT token FROM es_poll('many', 'ann', 9) GROUP BY 1) d;
	SELECT string_agg(position::text, ',' ORDER BY position) FROM es_partitions;
	SELECT version FROM es_delete_stream('s-2', 'any');
	SELECT count(*) FROM es_load('s-2');
	SELECT version FROM es_append('person-1', 'any', 'joined', '{"name": "Ann"}');
	SELECT data, metadata FROM es_load('person-1')};
$node->safe_psql('postgres', q{SELECT es_define_event_type('joined', personal => '{name}')});

is(reset_says(), 'done', 'emptied');
my $first = $other->query_safe($remember);
like($first, qr/^1 1,1 2,1 3,2 4.*\n\{"name": "Ann"\}\|$/s, 'a store from position 1');
foreach my $time (2 .. 4)
{
	is(reset_says(), 'done', "emptied beside a session that is idle: $time");
	is($other->query_safe($remember), $first, 'for which everything is as at first');
}

#
# Crash, standby, dump
#

is(reset_says(), 'done', 'emptied');
$node->safe_psql('postgres', q{SELECT count(es_append('a-1', 'any', 'x')) FROM generate_series(1, 100)});
$reset = $node->background_psql('postgres');
$reset->query_safe('BEGIN; SELECT es_reset()');
$other->quit;
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', q{SELECT count(*), es_horizon(), (es_append('a-1', 100, 'x')).version FROM es_events}), '100|100|101', 'a crash before the commit undoes it');
eval { $reset->quit };
$node->safe_psql('postgres', 'SELECT es_reset()');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', q{SELECT count(*), es_horizon() FROM es_events}), '0|0', 'a crash after the commit does not');
is($node->safe_psql('postgres', q{SELECT es_append('a-1', 'none', 'x')}), '(1,1)', 'positions begin at 1');

my $standby = new_standby($node);
$node->wait_for_catchup($standby);
my $reader = $standby->background_psql('postgres');
is($reader->query_safe('SELECT count(*), es_horizon() FROM es_events'), '1|1', 'a session of a standby');
$node->safe_psql('postgres', q{SELECT es_reset(); SELECT count(es_append('b-1', 'any', 'x')) FROM generate_series(1, 3)});
$node->wait_for_catchup($standby);
is($reader->query_safe(q{SELECT count(*), es_horizon(), string_agg(stream, ',') FROM es_read()}), '3|3|b-1,b-1,b-1', 'reads the store as it was emptied');
like(($standby->psql('postgres', 'SELECT es_reset()'))[2], qr/cannot execute es_reset\(\) (in a read-only transaction|during recovery)/, 'a standby refuses');
$reader->quit;
$standby->stop;

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dumped');
create_database($node, 'restored', 'public');
$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], 'restored');
is($node->safe_psql('restored', q{SELECT count(*), (es_append('b-1', 3, 'x')).position FROM es_events; SELECT number > 1, reason FROM es_incarnations ORDER BY number}), "3|4\nt|reset\nt|restored", 'a store that was emptied can be restored');

#
# Time
#

# The median, in one session, as in a program that tests.
sub milliseconds_of_reset
{
	my ($events) = @_;
	my $round = "CALL fill($events); SELECT es_run_projections('seen');\n\\timing on\nSELECT es_reset();\n\\timing off\n";
	my $out = $node->safe_psql('postgres', "CREATE OR REPLACE PROCEDURE fill(events int) LANGUAGE sql AS \$\$
		INSERT INTO es_import (stream, type, tags) SELECT 's-' || i % 100, 'x', ARRAY['t:' || i % 50] FROM generate_series(1, events) i \$\$;\n" . $round x 5);

	return median($out =~ /Time: ([\d.]+) ms/g);
}

foreach my $fsync (qw(off on))
{
	$node->append_conf('postgresql.conf', "fsync = $fsync");
	$node->reload;
	my ($few, $many) = map { milliseconds_of_reset($_) } (10, 10_000);

	diag(sprintf '140_reset: fsync = %s: a store of 10 events is emptied in %.1f ms, one of 10,000 in %.1f ms', $fsync, $few, $many);
	cmp_ok($many, '<', 5 * $few + 50, "fsync = $fsync: the time does not grow with the events");
}

done_testing();
