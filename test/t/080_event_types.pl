# Definitions of event types where sessions that have them in memory cannot be
# told by the session that defines: on a standby, in workers, after a restore.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dump    = PostgreSQL::Test::Utils::tempdir() . '/dump';
my $primary = new_store(
	'primary',
	fsync     => 'off',
	streaming => 1,
	workers   => 1,
	conf      => 'hot_standby_feedback = on');

$primary->safe_psql('postgres', <<'END');
CREATE SCHEMA app;
CREATE FUNCTION app.add(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data || '{"b": 1}' $$;
CREATE FUNCTION app.count(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data || jsonb_build_object('b', (data->>'b')::int + 1) $$;
CREATE TABLE app.seen (version bigint, data jsonb);
CREATE FUNCTION app.note(event es_recorded_event) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.seen VALUES (event.version, event.data) $$;
SELECT es_create_projection('seen', 'app.note(es_recorded_event)');
SELECT es_append('thing-1', 'none', 'made');
END

my $standby = new_standby($primary);

# What the worker has handed on, when it has handled everything.
sub seen
{
	return $primary->safe_psql('postgres', q{
		SELECT es_wait('seen', (SELECT max(position) FROM es_events), '60s');
		SELECT string_agg(version || data::text, ' ' ORDER BY version) FROM app.seen});
}

#
# A standby, and a worker
#
my $reader = $standby->background_psql('postgres');
my $load = q{SELECT string_agg(data::text, ' ' ORDER BY version) FROM es_load('thing-1')};

$reader->query_safe("PREPARE load AS $load");
is($reader->query_safe('EXECUTE load'), '{}', 'standby: as it was written');
is(seen(), "t\n1{}", 'worker: as it was written');
$primary->safe_psql('postgres', q{SELECT es_define_upcaster('made', 1, 'app.add(jsonb)')});
$primary->safe_psql('postgres', q{SELECT es_append('thing-1', 1, 'made')});
$primary->wait_for_catchup($standby);
is($reader->query_safe('EXECUTE load'), '{"b": 1} {"b": 1}', 'standby: a plan that was there before is made anew');
is(seen(), qq(t\n1{} 2{"b": 1}), 'worker: what comes is upcast');
$primary->safe_psql('postgres', q{SELECT es_define_upcaster('made', 2, 'app.count(jsonb)')});
$primary->safe_psql('postgres', q{SELECT es_append('thing-1', 2, 'made')});
$primary->wait_for_catchup($standby);
is($reader->query_safe('EXECUTE load'), '{"b": 2} {"b": 2} {"b": 2}', 'standby: by the second, too');
is(seen(), qq(t\n1{} 2{"b": 1} 3{"b": 2}), 'worker: by the second, too');
$standby->restart;
is($standby->safe_psql('postgres', $load), '{"b": 2} {"b": 2} {"b": 2}', 'standby: after a restart');
$reader->quit;

foreach my $sql (
	q{SELECT es_define_event_type('made')}, q{SELECT es_drop_event_type('made')},
	q{SELECT es_define_upcaster('made', 1, NULL)})
{
	like(($standby->psql('postgres', "\\set VERBOSITY verbose\n$sql"))[2],
		qr/ERROR:  25006: cannot execute es_\w+\(\) in a read-only transaction/, "standby: refused: $sql");
}
is($standby->safe_psql('postgres', q{SELECT upcasters->>'2' FROM es_describe_event_type('made')}),
	'app.count(pg_catalog.jsonb)', 'standby: described');

#
# Dump and restore
#
$primary->safe_psql('postgres', <<'END');
SELECT es_define_event_type('kept', '{b}', '{a}', '{"a": "int4"}', description => 'it''s kept');
SELECT es_append('thing-2', 'none', 'kept', '{"a": 1, "b": 2}');
END
my $definitions = q{
	SELECT string_agg(t::text, ' ') FROM es_event_types t;
	SELECT string_agg(u::text, ' ' ORDER BY from_version) FROM es_upcasters u};
my $expected = $primary->safe_psql('postgres', $definitions);
my $digest = log_digest($primary, 'postgres');

$primary->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $primary->connstr('postgres') ], 'pg_dump');

# All that a restored store must do; a session with nothing in memory asks.
sub is_same_store
{
	my ($database) = @_;

	is($primary->safe_psql($database, $definitions), $expected, "$database: the same definitions");
	is(log_digest($primary, $database), $digest, "$database: the same log, as it was written");
	is($primary->safe_psql($database, $load), '{"b": 2} {"b": 2} {"b": 2}', "$database: upcast");
	is($primary->safe_psql($database, q{SELECT version FROM es_append('thing-2', 'none', 'kept', '{"a": 1, "b": 2}')}),
		'1', "$database: an event is known by its key");
	like(($primary->psql($database, qq{\\set VERBOSITY verbose\nSELECT es_append('thing-2', 'any', 'kept', '{"a": 2}')}))[2],
		qr/ERROR:  ES004:/, "$database: an event is checked");
	return;
}

$primary->safe_psql('postgres', 'CREATE DATABASE restored');
$primary->command_ok([ 'pg_restore', '--exit-on-error', '-d', $primary->connstr('restored'), $dump ], 'pg_restore');
is_same_store('restored');

# Data alone, into a store in use: its sessions are told.
$primary->safe_psql('postgres', 'CREATE DATABASE filled');
$primary->command_ok([ 'pg_restore', '--exit-on-error', '--section=pre-data', '-d', $primary->connstr('filled'), $dump ],
	'pg_restore of what comes before the data');
$primary->safe_psql('filled', 'SELECT es_finish_restore(discard => true)');    # the store is opened, to be in use
my $warm = $primary->background_psql('filled', on_error_stop => 0);
my $append = q{SELECT version FROM es_append('warm-1', 'any', 'kept', '{"a": 7}')};
$warm->query_safe('BEGIN');
is($warm->query_safe($append), '1', 'filled: nothing is defined');
$warm->query_safe('ROLLBACK');
$primary->command_ok([ 'pg_restore', '--exit-on-error', '--section=data', '-d', $primary->connstr('filled'), $dump ],
	'pg_restore of the data');
is($warm->query_safe($load), '{"b": 2} {"b": 2} {"b": 2}', 'filled: a session that was there upcasts');
is(($warm->query(q{SELECT 'no' FROM es_append('warm-1', 'any', 'kept', '{"a": 7}')}))[0], '', 'filled: and checks');
$warm->quit;
is_same_store('filled');

$standby->stop;
$primary->stop;
done_testing();
