# Readers on a streaming standby never pass an append that is still in flight on
# the primary; appends are refused there; and after a promotion the store goes on.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use EventStoreWriters;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder  = PostgreSQL::Test::Utils::tempdir();
my $primary = new_store('primary', streaming => 1, conf => "hot_standby_feedback = on\ndeadlock_timeout = 50ms\n");

use_seed();
my $standby = new_standby($primary);

# Streams of the events after a position, as a reader on the standby gets them.
sub reads_there
{
	my ($last) = @_;

	$primary->wait_for_catchup($standby);
	return $standby->safe_psql('postgres',
		"SELECT string_agg(stream, ',' ORDER BY position) FROM es_read($last)");
}

sub last_position
{
	return $primary->safe_psql('postgres', 'SELECT coalesce(max(position), 0) FROM es_events');
}

sub append
{
	my ($stream) = @_;

	return "SELECT es_append('$stream', 'any', 'happened')";
}

sub session
{
	my ($node, $begin) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_safe($begin // 'BEGIN');
	return $session;
}

sub finish
{
	my ($session, $end) = @_;

	$session->query_safe($end);
	$session->quit;
	return;
}

#
# Out of order, on purpose
#

my ($last, $slow, $quick, $idle);

$primary->safe_psql('postgres', 'CREATE TABLE nothing ()');
$primary->safe_psql('postgres', append('first-1'));
$primary->safe_psql('postgres', q{SELECT es_create_subscription('all')});
$last = last_position();
$slow = session($primary);
$slow->query_safe(append('slow-1'));
$primary->safe_psql('postgres', append('quick-1'));
is(reads_there($last), '', 'an append in flight holds a reader');
is_query($primary, 'SELECT count(*) FROM es_horizon_holders', '1', 'the primary names it');
is_query($standby, 'SELECT count(*) FROM es_horizon_holders', '0', 'the standby does not know it');
is_query($standby, q{SELECT horizon_held_since = recorded_at FROM es_subscription_status, es_events WHERE stream = 'quick-1'},
	't', 'but its status says since when an event waits');
is($standby->safe_psql('postgres', q{SET eventstore.health_delay = 0; SELECT problem, object, remedy IS NULL FROM es_health WHERE problem = 'horizon_held'}),
	'horizon_held|the primary|t', 'and es_health where to look');
finish($slow, 'COMMIT');
is(reads_there($last), 'slow-1,quick-1', 'and is read first');
is_query($standby, 'SELECT horizon_held_since IS NULL FROM es_subscription_status', 't', 'then none waits');

$last = last_position();
$slow = session($primary);
$slow->query_safe(append('slow-1'));
$primary->safe_psql('postgres', append('quick-1'));
is(reads_there($last), '', 'one that will be rolled back holds it too');
finish($slow, 'ROLLBACK');
# the standby hears of a rollback when some commit takes it along
$primary->safe_psql('postgres', 'INSERT INTO nothing DEFAULT VALUES');
is(reads_there($last), 'quick-1', 'until then');

# A query of tags ends at the horizon there, and does not wait.
sub finds_there
{
	my ($after) = @_;

	$primary->wait_for_catchup($standby);
	return $standby->safe_psql('postgres',
		qq{SELECT string_agg(stream, ',' ORDER BY position) FROM es_query('[{"tags": ["t"]}, {"tags": ["u"]}]', $after)});
}

sub query_there
{
	my ($after, $count, $query) = @_;

	$count //= 'NULL';
	$query //= '[{"tags": ["t"]}, {"tags": ["u"]}]';
	$primary->wait_for_catchup($standby);
	return $standby->safe_psql('postgres',
		qq{SELECT string_agg(stream, ',' ORDER BY position) FROM es_read($after, $count, '$query')});
}

$last = last_position();
$slow = session($primary);
$slow->query_safe(q{SELECT es_append('slow-1', 'any', 'happened', tags => '{t}')});
$primary->safe_psql('postgres', q{SELECT es_append('quick-1', 'any', 'happened', tags => '{u}')});
is(finds_there($last), '', 'an append in flight holds a query of tags');
is(query_there($last), '', 'and es_read with a query');
finish($slow, 'COMMIT');
is(finds_there($last), 'slow-1,quick-1', 'and is found first');
is(query_there($last), 'slow-1,quick-1', 'es_read with a query finds the same');
is(query_there($last, 1), 'slow-1', 'one of them');
$primary->safe_psql('postgres', q{SELECT es_index_type('happened')});
is(query_there($last, 2, '[{"types": ["happened"]}]'), 'slow-1,quick-1', 'by the index of a type');

# How far consumers with a query are behind is counted there, too.
$primary->safe_psql('postgres', q{
	SELECT es_create_subscription('tagged', query => '[{"tags": ["t"]}, {"types": ["happened"], "tags": ["u"]}, {"tags": ["none", "t"]}]'),
	       es_create_subscription('typed', query => '[{"types": ["happened"]}, {"tags": ["none"]}]')});
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{
	SELECT string_agg(subscription || ' ' || (lag_events = CASE subscription WHEN 'tagged' THEN 2 ELSE (SELECT count(*) FROM es_events WHERE type = 'happened') END),
	                  ', ' ORDER BY subscription) FROM es_subscription_status WHERE subscription LIKE 't%'}),
	'tagged true, typed true', 'and the lag of consumers with a query');
like(($standby->psql('postgres', q{SELECT es_append_if('[{"type": "a", "tags": ["t"]}]', '[{"tags": ["t"]}]')}))[2],
	qr/cannot execute es_append_if\(\) in a read-only transaction/, 'nothing is appended under a condition there');

# The next_xid of what is committed may be above all ids that the standby has
# heard of: an id is in the log only when its transaction writes something.
$last = last_position();
$quick = session($primary, 'BEGIN; SELECT pg_current_xact_id()');
$slow = session($primary);
$slow->query_safe(append('slow-1'));
$idle = session($primary, 'BEGIN; SELECT pg_current_xact_id()');
$quick->query_safe(append('quick-1'));
finish($quick, 'COMMIT');
is(reads_there($last), '', 'a next_xid above the next id that the standby knows is no reason to pass');
finish($slow, 'COMMIT');
finish($idle, 'ROLLBACK');
is(reads_there($last), 'slow-1,quick-1', 'then all is read');

# The same when it is unwritten ids of subtransactions.
$last = last_position();
$quick = session($primary, 'BEGIN; SELECT pg_current_xact_id()');
$slow = session($primary);
$slow->query_safe(append('slow-1'));
$idle = session($primary);
$idle->query_safe("SAVEPOINT s$_; SELECT pg_current_xact_id()") foreach 1 .. 60;
$quick->query_safe(append('quick-1'));
finish($quick, 'COMMIT');
is(reads_there($last), '', 'nor when many ids were given out meanwhile');
finish($slow, 'COMMIT');
finish($idle, 'ROLLBACK');
is(reads_there($last), 'slow-1,quick-1', 'then all is read');

# Subtransactions, more than a snapshot has room for.
$last = last_position();
$slow = session($primary);
$slow->query_safe(q{DO $$ BEGIN
	FOR i IN 1 .. 80 LOOP
		BEGIN
			PERFORM es_append('slow-' || i, 'any', 'happened');
			IF i > 1 THEN RAISE division_by_zero; END IF;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP; END $$});
$primary->safe_psql('postgres', append('quick-1'));
is(reads_there($last), '', 'many subtransactions hold it');
finish($slow, 'COMMIT');
is(reads_there($last), 'slow-1,quick-1', 'and only what was not rolled back is read');

# A prepared transaction.
$last = last_position();
$primary->safe_psql('postgres', 'BEGIN; ' . append('slow-1') . "; PREPARE TRANSACTION 'slow'");
$primary->safe_psql('postgres', append('quick-1'));
is(reads_there($last), '', 'a prepared transaction holds it');
$standby->restart;
is(reads_there($last), '', 'also after a restart of the standby');
$primary->safe_psql('postgres', "COMMIT PREPARED 'slow'");
is(reads_there($last), 'slow-1,quick-1', 'until it is committed');

# One snapshot for a long time.
$last = last_position();
$slow = session($primary);
$slow->query_safe(append('slow-1'));
$primary->safe_psql('postgres', append('quick-1'));
$primary->wait_for_catchup($standby);
my $repeatable = session($standby, 'BEGIN ISOLATION LEVEL REPEATABLE READ');
is($repeatable->query_safe("SELECT count(*) FROM es_read($last)"), '0', 'REPEATABLE READ: nothing yet');
finish($slow, 'COMMIT');
$primary->wait_for_catchup($standby);
is($repeatable->query_safe("SELECT count(*) FROM es_read($last)"), '0',
	'REPEATABLE READ: still nothing, since its snapshot does not see the slow append');
finish($repeatable, 'COMMIT');
is(reads_there($last), 'slow-1,quick-1', 'then all is read');

#
# Appends on a standby
#

foreach my $sql (
	append('standby-1'),
	q{SELECT es_append_batch('standby-1', 'any', '[{"type": "happened"}]')},
	q{SELECT es_append_batch('standby-1', 'any', ARRAY['happened'], ARRAY['{}']::jsonb[])},
	q{INSERT INTO es_import (stream, type) VALUES ('standby-1', 'happened')},
	"COPY es_import (stream, type) FROM STDIN;\nstandby-1\thappened\n\\.\n")
{
	my ($result, $out, $err) =
	  $standby->psql('postgres', "\\set VERBOSITY verbose\n$sql", on_error_stop => 0);

	like($err, qr/ERROR:  25006: cannot .* (?:in a read-only transaction|during recovery)/,
		'refused on a standby: ' . (split /\n/, $sql)[0]);
}

#
# Many writers, and readers on the standby
#

my %tail_sql = (
	'READ COMMITTED' => 'SELECT position, stream FROM es_read(%s, 100)',
	'REPEATABLE READ' => 'SELECT position, stream FROM es_read(%s, 100)',
	'without the horizon' =>
	  'SELECT position, stream FROM es_events WHERE position > %s ORDER BY position LIMIT 100');
my %tail;

$last = last_position();
foreach my $kind (keys %tail_sql)
{
	(my $file = "$folder/$kind") =~ s/ /_/g;
	my $sql = sprintf $tail_sql{$kind}, 'last';

	# Several reads in a transaction; the last event has a stream of its own.
	append_to_file("$file.sql", <<"END");
\\set VERBOSITY terse
SET client_min_messages = info;
DO \$\$
DECLARE
	last bigint := $last;
	chunk bigint[];
	reads bigint := 0;
	ended bool;
BEGIN
	LOOP
		SELECT array_agg(position ORDER BY position), bool_or(stream = 'end-1') INTO chunk, ended FROM ($sql) AS e;
		reads := reads + 1;
		IF chunk IS NULL THEN
			PERFORM pg_sleep(0.002);
			COMMIT;
		ELSE
			RAISE INFO 'seen %', array_to_string(chunk, ',');
			last := chunk[array_upper(chunk, 1)];
			EXIT WHEN ended;
			IF reads % 5 = 0 THEN COMMIT; END IF;
		END IF;
	END LOOP;
	RAISE INFO 'reads %', reads;
END \$\$;
END
	local $ENV{PGOPTIONS} = '-c statement_timeout=60s -c default_transaction_isolation='
	  . ($kind =~ /REPEATABLE/ ? 'repeatable\\ read' : 'read\\ committed');
	$tail{$kind} = { file => $file, psql => start_psql($standby, "$file.sql", $file) };
}
create_writers($primary);
write_events($primary, 4, quick => 6, slow => 8);
write_events($primary, 2, burst => 6);
write_events($primary, 2, quick => 3);
$primary->safe_psql('postgres', append('end-1'));
holds_versions_dense($primary, 'writers');

my $log = $primary->safe_psql('postgres',
	"SELECT string_agg(position::text, ',' ORDER BY position) FROM es_events WHERE position > $last");
my @events = split /,/, $log;
foreach my $kind (sort keys %tail)
{
	my $file = $tail{$kind}{file};

	ok(finish_psql($tail{$kind}{psql}), "$kind: a reader on the standby to the end");
	my $err = slurp_file("$file.err");
	$tail{$kind}{seen} = join ',', $err =~ /INFO: +seen ([0-9,]+)/g;
	($tail{$kind}{reads}) = $err =~ /INFO: +reads (\d+)/;
	my @seen = split /,/, $tail{$kind}{seen};
	my %seen = map { $_ => 1 } @seen;
	$tail{$kind}{missed} = grep { !$seen{$_} } @events;
	next if $kind eq 'without the horizon';
	is($tail{$kind}{missed} . ', ' . (@seen - keys %seen), '0, 0', "$kind: nothing missed, nothing twice");
	ok($tail{$kind}{seen} eq $log, "$kind: it has read the log in order");
}
my $missed = $tail{'without the horizon'}{missed};
cmp_ok($missed, '>', 0, 'the same check catches a reader without the horizon');
diag(sprintf 'standby: %d events, %d gaps, %d and %d reads, %d missed by the reader without the horizon',
	scalar(@events), $events[-1] - $last - @events,
	$tail{'READ COMMITTED'}{reads}, $tail{'REPEATABLE READ'}{reads}, $missed);

#
# Promotion
#

$last = last_position();
# One that is prepared, one that is in flight, and three that are committed; the
# next_xid of the last one is above an id that the standby has not heard of.
$quick = session($primary, 'BEGIN; SELECT pg_current_xact_id()');
$primary->safe_psql('postgres', 'BEGIN; ' . append('prepared-1') . "; PREPARE TRANSACTION 'kept'");
my $lost = session($primary);
$lost->query_safe(append('lost-1'));
$slow = session($primary);
$slow->query_safe(append('slow-1'));
$primary->safe_psql('postgres', append('quick-1'));
$primary->wait_for_catchup($standby);
# a snapshot from before the promotion, which does not see the slow append
$repeatable = session($standby, 'BEGIN ISOLATION LEVEL REPEATABLE READ');
my $reader = $standby->background_psql('postgres');
is($repeatable->query_safe("SELECT count(*) FROM es_read($last)"), '0', 'before promotion: nothing to read');
is($reader->query_safe("SELECT count(*) FROM es_read($last)"), '0', 'before promotion: nothing to read');
finish($slow, 'COMMIT');
$idle = session($primary, 'BEGIN; SELECT pg_current_xact_id()');
$quick->query_safe(append('quick-2'));
finish($quick, 'COMMIT');
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$_->quit foreach ($lost, $idle);
$standby->promote;

is($repeatable->query_safe("SELECT count(*) FROM es_read($last)"), '0',
	'promoted: a snapshot from before still holds its reader');
is($standby->safe_psql('postgres', "SELECT count(*) FROM es_read($last)"), '0',
	'promoted: a prepared transaction is still in flight');
is($standby->safe_psql('postgres', q{SELECT version = 1 AND position > } . "$last + 4"
	  . q{ FROM es_append('after-1', 'none', 'happened')}), 't', 'promoted: appends go on, with a higher position');
is($standby->safe_psql('postgres',
		q{SELECT es_append('quick-1', es_stream_version('quick-1'), 'happened') IS NOT NULL}),
	't', 'promoted: and with the right version');
is($repeatable->query_safe("SELECT count(*) FROM es_read($last)"), '0',
	'promoted: still nothing under the old snapshot');
$standby->safe_psql('postgres', "COMMIT PREPARED 'kept'");
is($repeatable->query_safe("SELECT count(*) FROM es_read($last)"), '0',
	'promoted: still nothing under the old snapshot');
finish($repeatable, 'COMMIT');
is($reader->query_safe("SELECT string_agg(stream, ',' ORDER BY position) FROM es_read($last)"),
	'prepared-1,slow-1,quick-1,quick-2,after-1,quick-1',
	'promoted: a reader that was there before gets everything that was committed');
$reader->quit;
holds_horizon_at_end($standby, 'promoted');
holds_versions_dense($standby, 'promoted');
$standby->stop;
done_testing();
