# A handler that fails, while events are appended and several run projections: with
# on_failure = 'park' everything else goes on and the events of a parked stream
# keep their order; with 'stop' the projection stands before the bad event.
# Mended, both end where they would be without the failure.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreProjections;
use EventStoreTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_store(
	'failure',
	fsync   => 'off',
	workers => 2);

use_seed();
my @others = qw(by_query copied);

# Handlers do not know events with poison, until they are fixed.
create_read_models($node);
$node->safe_psql('postgres', <<'END');
CREATE TABLE fixed (handler text);
CREATE FUNCTION refuse_poison(handler text, event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF event.data ? 'poison' AND NOT EXISTS (SELECT FROM fixed AS m WHERE m.handler = $1) THEN
		RAISE EXCEPTION 'poison' USING DETAIL = event.stream, ERRCODE = 'XX999';
	END IF;
END $$;
ALTER FUNCTION by_handler RENAME TO by_handler_fixed;
ALTER FUNCTION by_category RENAME TO by_category_fixed;
CREATE FUNCTION by_handler(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	-- what is done before the error must be undone
	PERFORM by_handler_fixed(event);
	PERFORM refuse_poison('by_handler', event);
END $$;
CREATE FUNCTION by_category(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM by_category_fixed(event);
	PERFORM refuse_poison('by_category', event);
END $$;
END
create_projections($node, 'batch_size => 60, max_attempts => 2', 'postgres', @others);
create_projections($node, q{batch_size => 60, max_attempts => 2, on_failure => 'park'}, 'postgres', 'by_handler');
create_projections($node, q{batch_size => 60, max_attempts => 2, on_failure => 'stop'}, 'postgres', 'by_category');

my $appenders = start_appenders($node, clients => 3, seconds => 150, rate => 60);
my @runners = (start_runner($node), start_runner($node), start_poller($node));

sub fix
{
	my ($handler) = @_;

	sql($node, "INSERT INTO fixed VALUES ('$handler')");
	return;
}

# Events of their streams that others handle meanwhile.
sub append_poison
{
	my (@streams) = @_;

	sql($node, "SELECT es_append('$_', 'any', 'paid', '{\"n\": 1, \"poison\": true}')") foreach @streams;
	return;
}

# No event of a parked stream is handled after the first that is parked, and all of
# them up to the checkpoint are parked; only the first has failed.
sub parked_in_order
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_query($node, q{
		WITH parked AS (
			SELECT stream, min(position) AS first, count(*) AS n,
			       count(*) FILTER (WHERE sqlstate IS NOT NULL) AS failed,
			       (array_agg(sqlstate ORDER BY position))[1] AS sqlstate
			  FROM es_failures WHERE projection = 'by_handler' GROUP BY stream)
		SELECT stream, n, failed, sqlstate FROM parked
		 WHERE failed <> 1 OR sqlstate <> 'XX999'
		    OR first <= (SELECT last FROM by_handler AS m WHERE m.stream = parked.stream)
		    OR n <> (SELECT count(*) FROM es_events AS e
		              WHERE e.stream = parked.stream AND e.position >= first
		                AND e.position <= (SELECT position FROM es_projections WHERE name = 'by_handler'))},
		'', "$name: parked streams wait in order behind one that failed");
	return;
}

sub all_go_on
{
	my ($name, @projections) = @_;
	my $now = sql($node, 'SELECT max(position) FROM es_events');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	# not es_wait: the last event may be of a parked stream
	ok($node->poll_query_until('postgres', "SELECT position >= $now FROM es_projections WHERE name = '$_'"), "$name: $_ goes on")
	  foreach @projections;
	equals_fold($node, $name, projections => [ @others, qw(by_handler by_category) ]);
	return;
}

#
# Park
#

becomes_true($node, 'SELECT count(*) > 1000 FROM es_events', 'events are appended');
append_poison('account-1', 'order-1', 'order-2');
becomes_true($node, q{SELECT count(DISTINCT stream) = 3 FROM es_failures}, 'three streams are parked');
becomes_true($node, q{SELECT count(*) > 30 FROM es_failures}, 'and more of their events behind them');
parked_in_order('three streams');
all_go_on('three streams parked', @others, 'by_handler');
parked_in_order('three streams, later');
is_query($node, q{SELECT state, parked > 30, attempts, last_error IS NULL FROM es_projection_status WHERE name = 'by_handler'},
	'running|t|0|t', 'a projection that has parked events runs, and nothing is wrong with it');
is_query($node, q{SELECT count(*) FROM es_failures(projection => 'by_handler', type => 'paid', max_count => 2)},
	'2', 'they are listed');

# Many in one batch, of which some are in parked streams, and two in one stream.
sql($node, q{INSERT INTO es_import (stream, type, data)
	SELECT 'mixed-' || i % 7, 'paid', CASE WHEN i % 5 = 0 THEN '{"n": 1, "poison": 1}' ELSE '{"n": 1}' END::jsonb
	  FROM generate_series(1, 100) AS i});
append_poison('order-1', 'order-2');
becomes_true($node, q{SELECT count(DISTINCT stream) = 10 FROM es_failures}, 'streams of one batch are parked');
all_go_on('ten streams parked', @others, 'by_handler');
parked_in_order('ten streams');

# They are tried again by themselves before they are parked for good.
becomes_true($node, q{SELECT bool_and(retry_at IS NULL AND attempts = 2) FROM es_failures WHERE sqlstate IS NOT NULL},
	'all are parked for good');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile),
	qr/WARNING:  projection "by_handler" has parked the event at position \d+ \(version \d+ of stream "mixed-0", type "paid"\): poison/,
	'the log says so');

# It fails again: the first of them, whichever is named.
my ($first, $last, $attempts) = split /\|/,
  sql($node, q{SELECT min(id), max(id), max(attempts) FROM es_failures WHERE stream = 'account-1'});
my ($status, $out, $err) = $node->psql('postgres', "SELECT es_retry($last)");
is($out, '0', 'nothing is handled by a retry that fails');
like($err, qr/WARNING: .*failed again at the event at position .* of stream "account-1", type "paid".*: poison.*DETAIL: +account-1.*HINT:/s, 'it says why');
is_query($node, "SELECT attempts FROM es_failures WHERE id = $first", $attempts + 1, 'and counts it');
parked_in_order('after a retry that failed');

# One is discarded: later events of the stream that are no poison are handled.
($first, $last) = split /\|/, sql($node, q{SELECT min(id), min(position) FROM es_failures WHERE stream = 'mixed-0'});
sql($node, "SELECT es_discard($first)");
is_query($node, q{SELECT count(*) FROM es_failures WHERE stream = 'mixed-0' AND sqlstate IS NOT NULL},
	'1', 'the next poison of the stream is before us');
is_query($node, qq{SELECT min(position) > $last FROM es_failures WHERE stream = 'mixed-0'}, 't', 'behind the one that is discarded');
parked_in_order('after a discard');
is_query($node, q{SELECT (SELECT n FROM by_handler WHERE stream = 'mixed-0') + (SELECT count(*) FROM es_failures WHERE stream = 'mixed-0')
	- (SELECT count(*) FROM es_events WHERE stream = 'mixed-0')}, '-1', 'one event has no effect');

# Mended: streams are retried while their next events come, by two at once.
fix('by_handler');
my $retry = q{
	SELECT format('SELECT es_retry(%s)', max(id)) FROM es_failures WHERE projection = 'by_handler' GROUP BY stream \gexec
};
my $folder = PostgreSQL::Test::Utils::tempdir();
PostgreSQL::Test::Utils::append_to_file("$folder/retry.sql", $retry);
foreach my $try (1 .. 50)
{
	my @two = map { start_psql($node, "$folder/retry.sql", "$folder/retry-$_", '-v', 'ON_ERROR_STOP=0') } 1 .. 2;

	finish_psql($_) foreach @two;
	last if sql($node, q{SELECT count(*) FROM es_failures WHERE projection = 'by_handler'}) eq '0';
}
is_query($node, 'SELECT count(*) FROM es_failures', '0', 'after the retry nothing is parked');
sql($node, q{UPDATE by_handler SET n = n + 1, total = total + 1 WHERE stream = 'mixed-0'});    # what was discarded
all_go_on('all retried', @others, 'by_handler');

#
# Stop
#

becomes_true($node, q{SELECT state = 'failed' FROM es_projections WHERE name = 'by_category'}, 'the other projection has stopped');
is_query($node, q{
	SELECT p.position < bad.position, sqlstate, message, detail,
	       (SELECT count(*) FROM es_events WHERE es_category(stream) = 'account' AND type IN ('paid', 'noted')
	                                         AND position > p.position AND position < bad.position)
	  FROM es_projections p,
	       (SELECT min(position) AS position FROM es_events WHERE stream = 'account-1' AND data ? 'poison') AS bad
	 WHERE name = 'by_category'},
	't|XX999|poison|account-1|0', 'it stands right before the bad event, and says what was wrong');
is_query($node, q{SELECT count(*) FROM es_failures WHERE projection = 'by_category'}, '0', 'nothing is parked');
like(
	($node->psql('postgres', q{\set VERBOSITY verbose
		SELECT es_wait('by_category', (SELECT max(position) FROM es_events), '60s')}))[2],
	qr/ES005.*poison/s, 'a client that waits for it gets an error');
sql($node, q{SELECT es_resume_projection('by_category')});
becomes_true($node, q{SELECT state = 'failed' FROM es_projections WHERE name = 'by_category'}, 'resumed too early it stops again');
equals_fold($node, 'stopped', projections => ['by_category']);
all_go_on('one has stopped', @others, 'by_handler');
fix('by_category');
sql($node, q{SELECT es_resume_projection('by_category')});
all_go_on('resumed', @others, 'by_handler', 'by_category');

end_psql($appenders, @runners);
catch_up($node);
all_go_on('at the end', @others, 'by_handler', 'by_category');
is_query($node, q{SELECT bool_and(state = 'running' AND attempts = 0 AND last_error IS NULL AND parked = 0) FROM es_projection_status},
	't', 'at the end: nothing is wrong');
diag(sprintf 'projection failures: %d events', sql($node, 'SELECT count(*) FROM es_events'));
$node->stop;
done_testing();
