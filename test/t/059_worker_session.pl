# What a handler leaves in a worker's session is gone after its batch: locks of the session,
# temporary tables, prepared statements, cursors. No other worker waits for it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('session', workers => 2, conf => "eventstore.poll_interval = '50ms'\n");

# The workers are superusers, and so is the owner of the projections: nothing is refused.
sql($node, 'CREATE TABLE handled (who text, position bigint)',
	map { (qq{CREATE FUNCTION $_(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM pg_advisory_lock(7);
			CREATE TEMPORARY TABLE left_there (n int);
			EXECUTE 'PREPARE left_prepared AS SELECT 1';
			EXECUTE 'DECLARE left_open CURSOR WITH HOLD FOR SELECT 1';
			PERFORM set_config('TimeZone', 'Pacific/Kiritimati', false);
			INSERT INTO handled VALUES ('$_', event.position);
			IF event.type = 'bad' AND '$_' = 'second' THEN
				RAISE 'bad';
			END IF;
		END \$\$},
		"SELECT es_create_projection('$_', handler => '$_', max_attempts => 2, on_failure => 'park', batch_size => 1)") } qw(first second));
foreach my $type (qw(good good bad good))
{
	sql($node, "SELECT FROM es_append('a-' || gen_random_uuid(), 'any', '$type')");
	$node->poll_query_until('postgres', q{SELECT bool_and(lag_events = 0) FROM es_projection_status})
	  or die 'the workers do not go on: ' . sql($node, 'TABLE es_projection_status');
}
is(sql($node, q{SELECT who, count(*) FROM handled GROUP BY 1 ORDER BY 1}), "first|4\nsecond|3", 'all handlers went on');
is(sql($node, q{SELECT count(*) FROM es_failures}), '1', 'but for the event that fails');
$node->poll_query_until('postgres',
	q{SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND objid = 7})
  or die 'a lock of a handler is held';
is(sql($node, q{SELECT count(*) FROM pg_class WHERE relname = 'left_there'}), '0', 'no temporary table is left');

$node->stop;
done_testing();
