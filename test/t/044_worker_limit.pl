# One worker and several projections. A handler that sleeps, waits for a lock, or fails at
# each commit keeps no other projection waiting for long: it is canceled and named. What
# is slow, but ends, is handled in small batches.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store(
	'limit',
	conf => "eventstore.poll_interval = '20ms'\neventstore.handler_timeout = '300ms'\neventstore.max_retry_pause = '100ms'\n");

sub becomes
{
	my ($query, $name) = @_;

	becomes_true($node, $query, $name)
	  or diag(sql($node, 'SELECT name, state, attempts, sqlstate, last_error, position FROM es_projection_status'));
	return;
}

sub status
{
	my ($name, $columns) = @_;

	return sql($node, "SELECT $columns FROM es_projection_status WHERE name = '$name'");
}

sql($node, 'CREATE TABLE handled (who text, position bigint, xid xid8 DEFAULT pg_current_xact_id())',
	'CREATE TABLE locked (position bigint)',
	'CREATE FUNCTION log_position() RETURNS bigint LANGUAGE sql AS $$ SELECT max(position) FROM es_events $$',
	map({ my ($who, $code) = @$_;
		qq{CREATE FUNCTION $who(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS \$\$
			BEGIN
				$code
				INSERT INTO handled VALUES ('$who', event.position);
			END \$\$} }
		[ 'other',  '' ],
		[ 'sleeps', q{IF event.type = 'slow' THEN PERFORM pg_sleep(600); END IF;} ],
		[ 'parks',  q{IF event.type = 'slow' THEN PERFORM pg_sleep(600); END IF;} ],
		[ 'locks',  q{INSERT INTO locked VALUES (event.position);} ],
		[ 'walks',  q{PERFORM pg_sleep(0.05);} ],
		[ 'commits', q{INSERT INTO first VALUES (1);} ]),
	q{SELECT es_create_projection('other', handler => 'other')},
	'SELECT es_start_worker()');

sub others_go_on
{
	my ($name) = @_;

	becomes(q{SELECT coalesce(max(position), 0) = log_position() FROM handled WHERE who = 'other'}, $name);
	return;
}

# A handler that sleeps at an event
sql($node, q{SELECT es_create_projection('sleeps', handler => 'sleeps', category => 's', max_attempts => 2)},
	q{SELECT es_append_batch('s-1', 'any', '[{"type": "x"}, {"type": "x"}, {"type": "slow"}, {"type": "x"}]')});
others_go_on('another projection goes on beside a handler that sleeps');
becomes(q{SELECT state = 'failed' FROM es_projection_status WHERE name = 'sleeps'}, 'the handler is canceled, and fails');
sql($node, q{SELECT es_append('a-1', 'any', 'x')});
others_go_on('and so does it later');
is(status('sleeps', 'sqlstate, last_error, failed_stream, failed_version, failed_type, position'),
	q{57014|the batch was canceled after 300 ms|s-1|3|slow|2}, 'the status names the event, and what is before it took effect');
like(status('sleeps', 'error_detail'), qr/^eventstore.handler_timeout /, 'and the setting');
like(status('sleeps', 'error_context'), qr/pg_sleep.*projection "sleeps", event at position 3 /s, 'and what the handler did');
like(slurp_file($node->logfile), qr/WARNING:  projection "sleeps" has failed at the event at position 3 .*: the batch was canceled/, 'the log has it');
sql($node, q{CREATE OR REPLACE FUNCTION sleeps(event es_recorded_event) RETURNS void LANGUAGE sql AS $$ INSERT INTO handled VALUES ('sleeps', event.position) $$});
becomes(q{SELECT state = 'running' FROM es_projection_status WHERE name = 'sleeps'}, 'it goes on by itself when the handler ends');

# The same, where the event is parked
sql($node, q{SELECT es_create_projection('parks', handler => 'parks', category => 's', on_failure => 'park', max_attempts => 2)});
becomes(q{SELECT retry_at IS NULL FROM es_failures WHERE projection = 'parks' AND sqlstate = '57014' AND attempts = 2}, 'the event is parked, tried again, and parked for good');
is(sql($node, q{SELECT count(*) FROM handled WHERE who = 'parks'}), '2', 'which holds its stream only');
sql($node, q{SELECT es_drop_projection('parks')});

# A handler that waits for a lock
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE locked');
sql($node, q{SELECT es_create_projection('locks', handler => 'locks', category => 'l', max_attempts => 1)}, q{SELECT es_append('l-1', 'any', 'x')});
others_go_on('another projection goes on beside a handler that waits for a lock');
becomes(q{SELECT attempts > 1 FROM es_projection_status WHERE name = 'locks'}, 'the wait ends, and is tried again');
is(status('locks', 'state, sqlstate, failed_stream'), 'retrying|55P03|l-1', 'it is no fault of the event');
$locker->query_safe('COMMIT');
$locker->quit;
becomes(q{SELECT position IS NOT NULL FROM locked}, 'it goes on when the lock is free');

# A query that takes longer for a batch than there is time, and one that takes long by itself
sql($node, q{SELECT count(es_append('q-1', 'any', 'x')) FROM generate_series(1, 12)},
	q{SELECT es_create_projection('halves', category => 'q', query =>
		$$INSERT INTO handled SELECT 'halves', position FROM (SELECT position, pg_sleep(0.05) FROM new_events OFFSET 0) e$$)});
becomes(q{SELECT count(*) = 12 FROM handled WHERE who = 'halves'}, 'a query gets smaller batches, and each event once');
cmp_ok(sql($node, q{SELECT count(DISTINCT xid::text) FROM handled WHERE who = 'halves'}), '>', 1, 'several of them');
like(status('halves', 'state, attempts'), qr/^running\|0/, 'which is no failure');

# A handler that is slow, but ends
sql($node, q{SELECT count(es_append('w-1', 'any', 'x')) FROM generate_series(1, 12)}, q{SELECT es_create_projection('walks', handler => 'walks', category => 'w')},
	q{SELECT es_append('a-1', 'any', 'x')});
others_go_on('another projection has its turn beside a slow handler');
becomes(q{SELECT count(*) = 12 FROM handled WHERE who = 'walks'}, 'the slow handler gets each event once');
is(sql($node, q{SELECT who FROM handled WHERE who IN ('walks', 'other') ORDER BY xid DESC LIMIT 1}), 'walks', 'the other had its turn before that has handled all');
cmp_ok(sql($node, q{SELECT count(DISTINCT xid::text) FROM handled WHERE who = 'walks'}), '>=', 6, 'in small batches');
unlike(slurp_file($node->logfile), qr/projection "walks"/, 'and is not canceled');

# A batch that fails when it is committed: a deferred trigger that comes of one
sql($node, 'CREATE TABLE first (n int)', 'CREATE TABLE second (n int)',
	q{CREATE FUNCTION defers() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET CONSTRAINTS ALL DEFERRED; INSERT INTO second VALUES (1); RETURN NULL; END $$},
	q{CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not committed'; END $$},
	'CREATE CONSTRAINT TRIGGER defers AFTER INSERT ON first DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION defers()',
	'CREATE CONSTRAINT TRIGGER refuses AFTER INSERT ON second DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuses()',
	q{SELECT es_create_projection('commits', handler => 'commits', category => 'c', max_attempts => 2)}, q{SELECT es_append('c-1', 'any', 'x')});
others_go_on('another projection goes on beside one that fails at its commit');
becomes(q{SELECT state = 'failed' AND last_error = 'not committed' FROM es_projection_status WHERE name = 'commits'}, 'which has that error, and fails');
like(slurp_file($node->logfile), qr/ERROR:  not committed\n.*?CONTEXT:[^\n]*\n(\t[^\n]*\n)*\tcommit of a batch of projection "commits"/s, 'the log names it');
sql($node, 'DROP TRIGGER refuses ON second');
becomes(q{SELECT state = 'running' FROM es_projection_status WHERE name = 'commits'}, 'it goes on by itself');
is(sql($node, q{SELECT count(*) FROM handled WHERE who = 'commits'}), '1', 'and has handled the event once');

# Only the limit of a worker: a session has statement_timeout.
sql($node, q{SELECT es_create_projection('by_hand', query => 'INSERT INTO handled SELECT ''by_hand'', position FROM new_events, pg_sleep(0.6)', category => 'h')},
	q{SELECT es_pause_projection('by_hand')}, q{SELECT es_append('h-1', 'any', 'x')});
is(sql($node, 'BEGIN', q{SELECT es_resume_projection('by_hand')}, q{SELECT es_run_projections('by_hand')}, 'COMMIT') =~ s/^\n//r, '1', 'a session has its own limits');

# A database may have another limit than the server.
sql($node, q{ALTER DATABASE postgres SET eventstore.handler_timeout = 0}, q{SELECT es_append('h-1', 'any', 'x')},
	q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'eventstore worker'},
	'SELECT es_start_worker()');
becomes(q{SELECT count(*) = 2 FROM handled WHERE who = 'by_hand'}, 'a longer limit of the database is that of its new workers');

# Workers that are started by hand do not take all background processes of the server.
like(($node->psql('postgres', '\set VERBOSITY verbose
		SELECT es_start_worker() FROM generate_series(1, 10)'))[2],
	qr/ERROR:  53400: no more workers can be started in this database\nDETAIL:  It has 2,/, 'no more workers are started by hand than eventstore.workers');
is(sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventstore worker'}), '2', 'as many are there');
sql($node, q{SELECT pg_terminate_backend(min(pid), 60000) FROM pg_stat_activity WHERE backend_type = 'eventstore worker'}, 'SELECT es_start_worker()');
is(sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventstore worker'}), '2', 'another one when one has ended');

$node->stop;
done_testing();
