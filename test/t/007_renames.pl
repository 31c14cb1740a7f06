# Schemas, functions, tables, columns, databases and roles get other names while sessions
# have plans and workers run. They go on; what cannot go on says which name is missing, and
# goes on when the name is back.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_store(
	'renames',
	extension => 0,
	workers   => 1,
	conf      => q{
eventstore.databases = 'postgres, app'
eventstore.poll_interval = '100ms'
max_worker_processes = 12
log_line_prefix = '%m [%p] %b %q%a '
});

sql($node, 'CREATE SCHEMA s1',
	'ALTER DATABASE postgres SET search_path = public, s1, s2',
	'CREATE SCHEMA app');
sql($node, 'CREATE EXTENSION eventstore SCHEMA s1',
	'CREATE TABLE counted (who text, position bigint)',
	'CREATE TABLE queried (position bigint)',
	map({ qq{CREATE FUNCTION $_(event s1.es_recorded_event) RETURNS void LANGUAGE plpgsql AS
		\$\$ BEGIN INSERT INTO public.counted VALUES ('$_', event.position); END \$\$} } qw(app.by_sync app.by_worker app.by_session)),
	q{CREATE FUNCTION reduce(state jsonb, event s1.es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS
	  $$ BEGIN RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1); END $$},
	q{CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS
	  $$ BEGIN RETURN '[{"type": "decided"}]'; END $$},
	q{CREATE FUNCTION receive(payload text, metadata jsonb) RETURNS s1.es_ack_event LANGUAGE plpgsql AS
	  $$ BEGIN RETURN jsonb_populate_record(NULL::es_ack_event, '{"entity_id": "x", "event_type": "received", "stream": "inbox-1"}'); END $$},
	q{CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN data || '{"up": true}'; END $$});
sql($node, q{SELECT es_create_projection('by_sync', handler => 'app.by_sync', category => 'a', mode => 'sync')},
	q{SELECT es_create_projection('queried', query => 'INSERT INTO queried SELECT position FROM new_events', category => 'a', mode => 'sync', tables => '{queried}')},
	q{SELECT es_create_projection('by_worker', handler => 'app.by_worker(s1.es_recorded_event)', category => 'b')},
	q{SELECT es_create_subscription('consumer', category => 'a')},
	q{SELECT es_define_event_type('typed', composite_key => '{k}', schema_version => 2)},
	q{SELECT es_define_upcaster('typed', 1, 'up')});
is_query($node, q{SELECT string_agg(handler, ' ' ORDER BY name) FROM es_projections}, 'app.by_sync app.by_worker',
	'a handler is stored without the types of its arguments');

# What a session calls, each with a plan that the session keeps.
my @calls = (
	q{SELECT version > 0 FROM es_append('a-1', 'any', 'happened')},
	q{SELECT version > 0 FROM es_append('a-1', 'any', 'typed', jsonb_build_object('k', gen_random_uuid()), metadata => '{"schema_version": 1}')},
	q{SELECT version > 0 FROM es_append_batch('b-1', 'any', '[{"type": "x"}, {"type": "y"}]')},
	q{INSERT INTO es_import (stream, type) VALUES ('c-1', 'imported')},
	q{SELECT count(data) > 0 FROM es_load('a-1')},
	q{SELECT count(*) > 0 FROM es_read(0)},
	q{SELECT count(*) > 0 FROM es_read_category('a', 0)},
	q{SELECT bool_and(data ? 'up') FROM es_load('a-1') WHERE type = 'typed'},
	q{SELECT version > 0 FROM es_state('a-1', 'reduce')},
	q{SELECT es_snapshot('a-1', 'reduce') > 0},
	q{SELECT count(*) > 0 FROM es_history('a-1', 'reduce')},
	q{SELECT version > 0 FROM es_execute('d-1', 'decide', '{}', 'reduce')},
	q{SELECT es_receive('topic', 'group', gen_random_uuid()::text, 'receive')},
	q{SELECT count(*) > 0 FROM es_poll('consumer', max_count => 10)},
	q{SELECT es_seek('consumer', 0) IS NOT NULL},
	q{SELECT es_wait('by_worker', (SELECT max(position) FROM es_events WHERE es_category(stream) = 'b'), '60s')},
	q{SELECT es_rebuild_projection('queried') > 0},
	q{SELECT es_horizon() > 0},
	q{SELECT es_run_projections() >= 0},
	q{CALL es_work()},
	q{SELECT count(*) > 0 FROM es_projection_status},
	q{SELECT count(*) > 0 FROM es_subscription_status},
	q{SELECT es_pause_projection('by_sync'), es_resume_projection('by_sync')},
	q{SELECT es_define_event_type('other')},
	q{SELECT es_drop_event_type('other')},
	q{SELECT (es_describe_event_type('typed')).type},
	q{SELECT es_grant('pg_monitor', 'reader'), es_revoke('pg_monitor', 'reader')},
	q{SELECT count(*) >= 0 FROM es_failures()},
	q{SELECT es_rewrite(id, '{"k": 1}') IS NOT NULL FROM es_events WHERE stream = 'c-1' ORDER BY position LIMIT 1},
);

my $session = $node->background_psql('postgres', on_error_stop => 0);

sub call_all
{
	my @errors;

	foreach my $call (@calls)
	{
		$session->query($call);
		push @errors, "$call: $session->{stderr}" if $session->{stderr} =~ /ERROR/;
		$session->{stderr} = '';
	}
	return join "\n", @errors;
}

sub handled
{
	my ($name) = @_;

	return sql($node, "SELECT count(*) FROM counted WHERE who = '$name'");
}

# The worker's process, once it has handled all.
sub worker
{
	$node->poll_query_until('postgres', q{SELECT lag_events = 0 FROM es_projection_status WHERE name = 'by_worker'})
	  or die 'the worker does not run its projection';
	return sql($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = 'postgres'});
}

sub error_of
{
	my ($call) = @_;

	$session->query($call);
	my $error = $session->{stderr};
	$session->{stderr} = '';
	return $error;
}

# The schema of the extension
is(call_all(), '', 'a session makes its plans');
is(call_all(), '', 'and uses them');
my $worker = worker();
foreach my $names ([ 's1', 's2' ], [ 's2', '"Other ""Schema"' ], [ '"Other ""Schema"', 's1' ])
{
	my ($before, $after) = @$names;

	sql($node, 'ALTER DATABASE postgres SET search_path = public, s1, s2, "Other ""Schema"');
	$session->query('SET search_path = public, s1, s2, "Other ""Schema"');
	sql($node, "ALTER SCHEMA $before RENAME TO $after");
	my $handled = handled('app.by_worker');
	is(call_all(), '', "the session goes on when the extension's schema $before is $after");
	is(worker(), $worker, 'and so does the worker');
	cmp_ok(handled('app.by_worker'), '>', $handled, 'which has handled what came');
}

# Renamed again and again, it is so in the middle of a worker's statement, too.
$session->query(q{DO $$ BEGIN
	FOR i IN 1 .. 300 LOOP
		ALTER SCHEMA s1 RENAME TO s2; COMMIT;
		PERFORM s2.es_append('b-1', 'any', 'x'); COMMIT;
		ALTER SCHEMA s2 RENAME TO s1; COMMIT;
		PERFORM s1.es_append('b-1', 'any', 'x'); COMMIT;
	END LOOP;
END $$});
is($session->{stderr}, '', 'the schema is renamed 600 times');
is(worker(), $worker, 'the worker goes on');
unlike(slurp_file($node->logfile), qr/eventstore worker.*ERROR/, 'without an error');

# The extension's schema in the search_path that a definition keeps: for a projection, an
# upcaster and a message that failed.
sql($node, 'SET search_path = s1, public; CREATE TABLE s1.kept (position bigint)',
	q{CREATE FUNCTION public.fall(payload text, metadata jsonb) RETURNS s1.es_ack_event LANGUAGE plpgsql AS
	  $$ BEGIN PERFORM count(*) / count(*) FROM kept; RETURN jsonb_populate_record(NULL::es_ack_event, '{"entity_id": "x"}'); END $$});
$node->safe_psql('postgres', q{SET search_path = s1, public;
	SELECT es_create_projection('kept', query => 'INSERT INTO kept SELECT position FROM new_events', category => 'k', tables => '{kept}', mode => 'sync');
	SELECT es_create_projection('kept_later', query => 'INSERT INTO kept SELECT position FROM new_events', category => 'k');
	CREATE FUNCTION public.up_kept(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN data || jsonb_build_object('kept', (SELECT count(*) FROM kept)); END $$;
	SELECT es_define_event_type('up_kept', schema_version => 2), es_define_upcaster('up_kept', 1, 'up_kept');
	SELECT es_receive('kept', 'group', 'x', 'fall', max_retries => 0)});
is_query($node, q{SELECT string_agg(DISTINCT search_path, ' ') FROM es_projections WHERE name LIKE 'kept%'}, '@extschema@, public', 'the schema is kept by a mark');
sql($node, 'ALTER DATABASE postgres SET search_path = s2, public', 'ALTER SCHEMA s1 RENAME TO s2');
$session->query('SET search_path = s2, public');
foreach my $call (
	q{SELECT version FROM es_append('k-1', 'any', 'up_kept', metadata => '{"schema_version": 1}')},
	q{SELECT es_wait('kept_later', es_horizon(), '60s')},
	q{SELECT data FROM es_load('k-1')},
	q{SELECT es_rebuild_projection('kept')},
	q{SELECT es_retry(id) FROM es_failures WHERE topic = 'kept'})
{
	unlike(error_of($call), qr/ERROR|WARNING/, "$call: by the schema's present name");
}
is_query($node, q{SELECT count(*) FROM es_failures}, '0', 'the message is handled');
is_query($node, q{SELECT count(*) FROM kept}, '1', 'a rebuild fills the table in the schema');
sql($node, 'ALTER SCHEMA s2 RENAME TO s1', 'ALTER DATABASE postgres SET search_path = public, s1, s2');
$session->query('SET search_path = public, s1, s2');
$session->query($_) foreach q{SELECT es_drop_projection('kept'), es_drop_projection('kept_later')}, q{SELECT es_drop_event_type('up_kept')};

# Another schema of it: the error names it.
sql($node, 'CREATE SCHEMA models', 'CREATE TABLE models.listed (position bigint)');
$session->query($_) foreach 'SET search_path = models, public, s1',
  q{SELECT es_create_projection('listed', query => 'INSERT INTO listed SELECT position FROM new_events', category => 'l', mode => 'sync')},
  'SET search_path = public, s1, s2';
sql($node, 'ALTER SCHEMA models RENAME TO moved');
like(error_of(q{SELECT es_append('l-1', 'any', 'x')}),
	qr/relation "listed" does not exist.*CONTEXT:.*schema "models" of the stored search_path, models, public, \@extschema\@, does not exist/s,
	'a schema of the kept search_path is renamed, and the error says which');
sql($node, 'ALTER SCHEMA moved RENAME TO models');
is(error_of(q{SELECT es_append('l-1', 'any', 'x')}), '', 'the session goes on when the name is back');
$session->query(q{SELECT es_drop_projection('listed')});

# The owner, while a worker runs its projection.
sql($node, 'CREATE ROLE ann', q{SELECT es_grant('ann', 'operator'), es_grant('ann', 'writer')}, 'CREATE TABLE owned (who text)', 'ALTER TABLE owned OWNER TO ann');
sql($node, 'SET ROLE ann', q{SELECT es_create_projection('owned', query => 'INSERT INTO owned SELECT current_user FROM new_events', category => 'o')},
	q{SELECT es_append('o-1', 'any', 'x')}, q{SELECT es_wait('owned', es_horizon(), '60s')}, 'RESET ROLE',
	'ALTER ROLE ann RENAME TO anna', 'CREATE ROLE ann', q{SELECT es_append('o-1', 'any', 'x')});
is_query($node, q{SELECT es_wait('owned', es_horizon(), '60s')}, 't', 'the worker goes on when the owner has another name');
is_query($node, q{SELECT string_agg(who, ' ') FROM owned}, 'ann anna', 'as the same role');
sql($node, q{SELECT es_drop_projection('owned')});

# A handler, its schema, a table of the read model and a column of it.
my $append = q{SELECT version > 0 FROM es_append('a-1', 'any', 'happened')};
foreach my $case (
	[ 'a handler', 'ALTER FUNCTION app.by_sync RENAME TO renamed', qr/function "app.by_sync" does not exist/, 'ALTER FUNCTION app.renamed RENAME TO by_sync', 'by_sync' ],
	[ "a handler's schema", 'ALTER SCHEMA app RENAME TO renamed', qr/function "app.by_sync" does not exist\nDETAIL:  Schema "app" does not exist/, 'ALTER SCHEMA renamed RENAME TO app', 'by_sync' ],
	[ 'a table', 'ALTER TABLE queried RENAME TO renamed', qr/relation "queried" does not exist/, 'ALTER TABLE renamed RENAME TO queried', 'queried' ],
	[ 'a table that a handler writes', 'ALTER TABLE counted RENAME TO renamed', qr/relation "public.counted" does not exist/, 'ALTER TABLE renamed RENAME TO counted', 'by_sync' ])
{
	my ($what, $change, $error, $back, $projection) = @$case;

	is(error_of($append), '', "$what has its name");
	sql($node, $change);
	my $said = error_of($append);
	like($said, $error, "$what is renamed, and the error says which");
	like($said, qr/CONTEXT:.*projection "$projection"/s, 'and of which projection');
	sql($node, $back);
	is(error_of($append), '', 'the session goes on when the name is back');
}
sql($node, 'ALTER TABLE queried RENAME COLUMN position TO at');
is(error_of($append), '', 'a query that does not name the column goes on');
sql($node, 'ALTER TABLE counted RENAME COLUMN position TO at');
is(error_of($append), '', 'and a handler that does not');
unlike(error_of(q{SELECT es_rebuild_projection('queried')}), qr/ERROR/, 'and a rebuild');

# A renamed handler of an async projection
sql($node, 'ALTER FUNCTION app.by_worker RENAME TO renamed', q{SELECT FROM es_append('b-2', 'any', 'x')});
$node->poll_query_until('postgres', q{SELECT last_error LIKE '%function "app.by_worker" does not exist%' FROM es_projection_status WHERE name = 'by_worker'})
  or die 'the status has no error';
is(worker_pid(), $worker, 'the worker stays when a handler is renamed, and the status has the error');
sql($node, 'ALTER FUNCTION app.renamed RENAME TO by_worker', q{SELECT es_resume_projection('by_worker')});
worker();
is_query($node, q{SELECT count(*) FROM es_failures}, '0', 'and goes on when the name is back');

sub worker_pid
{
	return sql($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = 'postgres'});
}
$session->quit;

# A database, and another that is made under its name. Sessions of the old one have no worker
# then, and notify by themselves.
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', 'CREATE EXTENSION eventstore');

sub has_worker
{
	my ($database) = @_;

	return $node->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = '$database' AND wait_event_type = 'Extension'");
}
has_worker('app') or die 'the database has no worker';
wait_until('the database to be renamed', sub {
	my ($result) = $node->psql('postgres', q{
		SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'app';
		ALTER DATABASE app RENAME TO old});
	return $result == 0;
});
my $old = $node->background_psql('old');
my $listener = $node->background_psql('old');

$listener->query('LISTEN es_events');
$old->query(q{SELECT es_append('a-1', 'any', 'x')});
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', 'CREATE EXTENSION eventstore');
has_worker('app') or die 'the new database has no worker';
$listener->query('SELECT 1');
$old->query(q{SELECT es_append('a-1', 'any', 'x')});
my $heard = '';
foreach (1 .. 20)
{
	$heard = $listener->query('SELECT 1');
	last if $heard =~ /Asynchronous notification "es_events"/;
	sleep 0.1;
}
like($heard, qr/Asynchronous notification "es_events"/, 'a renamed database notifies, though another has its name and worker');
$_->quit foreach $old, $listener;

$node->stop;
done_testing();
