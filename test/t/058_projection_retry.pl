# Projections whose handlers fail, with workers: what is wrong for a while mends itself,
# one event that is parked holds no other stream, the log says it once, and waiting costs
# nothing.  A crash in between neither loses an event nor handles one twice.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_store(
	'retry',
	workers => 2,
	conf    => "eventstore.poll_interval = '50ms'\neventstore.max_retry_pause = '200ms'\n");

# How often a line of the server's log fits.
sub logged
{
	my ($line) = @_;

	return scalar(() = slurp_file($node->logfile) =~ /$line/g);
}

sub append
{
	my ($stream, $n) = @_;

	return sql($node, qq{SELECT position FROM es_append('$stream', 'any', 'added', '{"n": "$n"}')});
}

sql($node, <<'END');
CREATE ROLE shop;
GRANT SELECT ON es_events TO shop;
GRANT USAGE, CREATE ON SCHEMA public TO shop;
GRANT EXECUTE ON FUNCTION es_create_projection TO shop;
CREATE TABLE taken (position bigint, stream text, n int);
CREATE TABLE granted (position bigint, n int);
GRANT INSERT ON taken, granted TO shop;
CREATE FUNCTION take(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO taken VALUES (event.position, event.stream, (event.data->>'n')::int);
END $$;
CREATE FUNCTION take_granted(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO granted VALUES (event.position, 1);
END $$;
SET ROLE shop;
SELECT es_create_projection('stops', 'take_granted(es_recorded_event)', max_attempts => 1);
SELECT es_create_projection('parks', 'take(es_recorded_event)', on_failure => 'park', max_attempts => 1000);
END

# What fails for want of a privilege goes on when that is there, without being resumed.
append("order-$_", $_) foreach 1 .. 5;
becomes_true($node, q{SELECT count(*) = 5 FROM granted}, 'events are handled');
sql($node, 'REVOKE INSERT ON granted FROM shop');
my $bad = append('order-1', 6);
append('order-1', 7);
becomes_true($node, q{SELECT attempts > 8 FROM es_projections WHERE name = 'stops'}, 'a projection tries again and again');
is_query($node, q{SELECT state, failed_position, failed_stream, failed_version, failed_type, sqlstate FROM es_projection_status WHERE name = 'stops'},
	"retrying|$bad|order-1|2|added|42501", 'more often than its attempts: it has not failed');
is(logged(qr/WARNING:  projection "stops" waits at the event at position $bad \(version 2 of stream "order-1", type "added"\): permission denied/),
	1, 'the log says it once, however often it tried');
is(logged(qr/\n\tprojection "stops", event at position $bad \(version 2 of stream "order-1", type "added", id [-0-9a-f]{36}\)/),
	1, 'with the id of the event');
$node->stop('immediate');
$node->start;
becomes_true($node, q{SELECT attempts > 10 FROM es_projections WHERE name = 'stops'}, 'after a crash it goes on trying');
sql($node, 'GRANT INSERT ON granted TO shop');
becomes_true($node, q{SELECT count(*) = 7 FROM granted}, 'granted again: it goes on by itself');
is_query($node, q{SELECT state, attempts, last_error IS NULL, failing_since IS NULL FROM es_projection_status WHERE name = 'stops'},
	'running|0|t|t', 'and nothing is wrong any more');
is(logged(qr/LOG:  projection "stops" goes on after \d+ failed attempts/), 1, 'the log says so');

# One that has failed by its event's fault, too, when its handler is replaced.
sql($node, q{ALTER FUNCTION take_granted RENAME TO take_granted_right;
	CREATE FUNCTION take_granted(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'not yet'; END $$});
$bad = append('order-2', 8);
becomes_true($node, q{SELECT state = 'failed' AND attempts > 3 FROM es_projection_status WHERE name = 'stops'}, 'a projection has failed, and tries on');
is(logged(qr/WARNING:  projection "stops" has failed at the event at position $bad /), 1, 'the log says it once');
sql($node, q{DROP FUNCTION take_granted; ALTER FUNCTION take_granted_right RENAME TO take_granted});
becomes_true($node, q{SELECT state = 'running' FROM es_projection_status WHERE name = 'stops'}, 'replaced: it goes on by itself');

# A parked event does not hold other streams, though it is tried again all the time.
$bad = append('order-3', 'poison');
append('order-3', 9);
my $other = append('order-4', 10);
is(sql($node, "SELECT es_wait('parks', $other, '60s')"), 't', 'an event of another stream is handled');
is_query($node, qq{SELECT attempts < 1000 AND retry_at IS NOT NULL FROM es_failures WHERE position = $bad},
	't', 'while the bad one is still tried again');
is_query($node, q{SELECT count(*) FROM taken WHERE stream = 'order-3'}, '1', 'an event of its stream waits behind it');
is(sql($node, "SELECT es_wait('parks', $bad, '1ms')"), 'f', 'es_wait does not take it for handled');

# es_wait waits for it; with it comes what waits behind it; crashes in between.
foreach my $crash (1 .. 2)
{
	becomes_true($node, qq{SELECT attempts > 3 * $crash FROM es_failures WHERE position = $bad}, "it is tried again ($crash)");
	$node->stop('immediate');
	$node->start;
}
my $folder = PostgreSQL::Test::Utils::tempdir();
PostgreSQL::Test::Utils::append_to_file("$folder/wait.sql", "SELECT es_wait('parks', $bad, '10min');\n");
my $waits = start_psql($node, "$folder/wait.sql", "$folder/wait");
becomes_true($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^SELECT es_wait' AND state = 'active'}, 'somebody waits for it');
sql($node, q{CREATE OR REPLACE FUNCTION take(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO taken VALUES (event.position, event.stream, CASE WHEN event.data->>'n' <> 'poison' THEN (event.data->>'n')::int END);
	END $$});
ok(finish_psql($waits), 'es_wait ends when it has taken effect');
is(slurp_file("$folder/wait.out"), "t\n", 'and is true');
becomes_true($node, q{SELECT count(*) = 0 FROM es_failures}, 'nothing is parked any more');
becomes_true($node, q{SELECT bool_and(position >= horizon AND state = 'running') FROM es_projection_status}, 'both have come to the end');
is_query($node, q{SELECT (SELECT string_agg(position::text, ' ' ORDER BY position) FROM taken) = string_agg(position::text, ' ' ORDER BY position),
		(SELECT string_agg(position::text, ' ' ORDER BY position) FROM granted) = string_agg(position::text, ' ' ORDER BY position) FROM es_events},
	't|t', 'each event has taken effect once');
is_query($node, q{SELECT string_agg(coalesce(n::text, 'poison'), ' ' ORDER BY ctid) FROM taken WHERE stream = 'order-3'},
	'3 poison 9', 'those of a stream in order');

# Parked for good: the log says it once, es_wait is an error.
sql($node, q{SELECT es_alter_projection('parks', max_attempts => 2);
	CREATE OR REPLACE FUNCTION take(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO taken VALUES (event.position, event.stream, (event.data->>'n')::int);
	END $$});
$bad = append('order-5', 'poison');
my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT es_wait('parks', $bad, '60s')");
my $id = sql($node, "SELECT id FROM es_failures WHERE position = $bad");
like($err, qr/ERROR:  ES005: projection "parks" has parked the event at position $bad\nDETAIL:  Failure $id: /, 'es_wait: it is parked');
is(logged(qr/WARNING:  projection "parks" has parked the event at position $bad /), 1, 'the log says it once');

# Projections that wait, and parked events, cost no more than an idle worker.
sql($node, 'REVOKE INSERT ON granted FROM shop');
append('order-6', 11);
becomes_true($node, q{SELECT attempts > 0 FROM es_projections WHERE name = 'stops'}, 'a projection waits');

# What the workers write and call while nothing happens.
sub cost
{
	my $sql = q{SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables};
	my $ticks = sub {
		my $sum = 0;

		foreach my $pid (split /\n/, sql($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type ~ '^eventstore'}))
		{
			my @fields = split / /, slurp_file("/proc/$pid/stat") =~ s/.*\) //sr;

			$sum += $fields[11] + $fields[12];
		}
		return $sum;
	};
	my ($rows, $used) = (sql($node, $sql), $ticks->());

	sleep 3;
	return (sql($node, $sql) - $rows, $ticks->() - $used);
}
sql($node, q{UPDATE es_projections SET next_attempt = clock_timestamp() + '1h' WHERE name = 'stops'});
sleep 1;
my ($rows, $waiting) = cost();
is($rows, 0, 'a projection that waits writes nothing');
sql($node, 'GRANT INSERT ON granted TO shop');
sql($node, q{SELECT es_resume_projection('stops')});
becomes_true($node, q{SELECT state = 'running' AND position >= horizon FROM es_projection_status WHERE name = 'stops'}, 'resumed: it goes on at once');
sleep 1;
my ($none, $idle) = cost();
cmp_ok($waiting, '<=', 2 * $idle + 10, "it uses the processor as an idle one does: $waiting ticks, $idle idle");

$node->stop;
done_testing();
