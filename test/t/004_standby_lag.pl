# An unrelated transaction of the primary, left open, does not hold back the
# readers of a standby where the primary has a worker.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $primary = new_store('primary', streaming => 1, fsync => 'off', workers => 2);
my $standby = new_standby($primary);

$primary->safe_psql('postgres', 'CREATE TABLE nothing ()');

my $reader = $standby->background_psql('postgres');

# Workers come some seconds after the extension, or the server.
sub wait_for_worker
{
	$primary->poll_query_until('postgres',
		q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'eventstore worker'})
	  or die "there is no worker";
	return;
}

# An event, a gap below it, and nothing that says that the gap is stable.
sub append_past_gap
{
	my ($stream) = @_;

	$primary->safe_psql('postgres', "BEGIN; SELECT es_append('gone-1', 'any', 'happened'); ROLLBACK");
	return $primary->safe_psql('postgres', "SELECT position FROM es_append('$stream', 'any', 'happened')");
}

# Seconds until the standby's horizon is there; at most so many.
sub lag
{
	my ($position, $limit) = @_;
	my $start = time;

	while ($reader->query_safe("SELECT es_horizon() >= $position") ne 't')
	{
		return $limit if time - $start > $limit;
		sleep 0.005;
	}
	return time - $start;
}

sub unrelated
{
	my $session = $primary->background_psql('postgres');

	$session->query_safe('BEGIN; SELECT pg_current_xact_id()');
	return $session;
}

sub end_of
{
	my ($session, $end) = @_;

	$session->query_safe($end // 'COMMIT');
	$session->quit;
	return;
}

# The horizon that the primary has published.
sub published
{
	return $primary->safe_psql('postgres', 'SELECT coalesce(max(position), 0) FROM es_published_horizon');
}

#
# Nothing to publish
#

is(published(), '0', 'nothing is published at first');
my $plain = $primary->safe_psql('postgres', "SELECT position FROM es_append('plain-1', 'any', 'happened')");
cmp_ok(lag($plain, 10), '<', 10, 'without a gap the standby has the event');
my $past = append_past_gap('past-1');
$primary->safe_psql('postgres', 'INSERT INTO nothing DEFAULT VALUES');
cmp_ok(lag($past, 10), '<', 10, 'with a gap, and no other transaction, the standby has the event');
sleep 0.5;
is(published(), '0', 'where a standby needs no help nothing is written');

#
# A transaction of three seconds
#

my @lags;
wait_for_worker();
my $long = unrelated();
my $start = time;

while (time - $start < 3)
{
	push @lags, lag(append_past_gap('past-1'), 5);
}
my $open = time - $start;
end_of($long);
cmp_ok($open, '>=', 3, 'a transaction was open for three seconds');
cmp_ok(scalar(@lags), '>', 3, 'several events were appended past gaps');
my ($worst) = sort { $b <=> $a } @lags;
cmp_ok($worst, '<', 1, 'the longest lag on the standby is under a second');
cmp_ok(published(), '>', $past, 'the primary has published its horizon');
diag(sprintf 'standby: %d events past gaps in %.1f s of an open transaction, lag %.0f ms in the middle, %.0f ms at most',
	scalar(@lags), $open, 1000 * median(@lags), 1000 * $worst);

# Without a worker the same check finds the standby waiting.
$primary->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$primary->restart;
$long = unrelated();
my $held = append_past_gap('held-1');
$primary->wait_for_catchup($standby);
$reader->quit;
$reader = $standby->background_psql('postgres');
is(lag($held, 2), 2, 'without a worker the standby waits');
end_of($long);
$primary->safe_psql('postgres', 'INSERT INTO nothing DEFAULT VALUES');
cmp_ok(lag($held, 10), '<', 10, 'until the transaction ends');
$primary->append_conf('postgresql.conf', "shared_preload_libraries = 'eventstore'\n");
$primary->restart;
$reader->quit;
$primary->wait_for_catchup($standby);
$reader = $standby->background_psql('postgres');

#
# What is in flight holds the standby, whatever is published
#

wait_for_worker();
$long = unrelated();
my $slow = $primary->background_psql('postgres');
$slow->query_safe("BEGIN; SELECT es_append('slow-1', 'any', 'happened')");
my $above = append_past_gap('above-1');
is(lag($above, 1.5), 1.5, 'an append in flight holds the standby');
end_of($slow, 'COMMIT');
cmp_ok(lag($above, 5), '<', 1, 'until it is committed');
is($reader->query_safe("SELECT string_agg(stream, ',' ORDER BY position) FROM es_read($held)"),
	'slow-1,above-1', 'and is read first');

# A prepared one, over a restart of the primary.
$primary->safe_psql('postgres', "BEGIN; SELECT es_append('slow-2', 'any', 'happened'); PREPARE TRANSACTION 'slow'");
$above = append_past_gap('above-2');
is(lag($above, 1.5), 1.5, 'a prepared append holds the standby');
end_of($long);
$primary->stop('immediate');
$primary->start;
$primary->wait_for_catchup($standby);
wait_for_worker();
$long = unrelated();
is(lag($above, 1), 1, 'also after a crash of the primary');
$primary->safe_psql('postgres', "COMMIT PREPARED 'slow'");
cmp_ok(lag($above, 5), '<', 2, 'until it is committed');

# An older snapshot does not believe a newer row.
my $repeatable = $standby->background_psql('postgres');
my $before = $reader->query_safe('SELECT es_horizon()');

$slow = $primary->background_psql('postgres');
$slow->query_safe("BEGIN; SELECT es_append('slow-3', 'any', 'happened')");
$above = append_past_gap('above-3');
$primary->wait_for_catchup($standby);
is($repeatable->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT es_horizon()'), $before,
	'REPEATABLE READ: an append in flight holds the reader');
end_of($slow, 'COMMIT');
cmp_ok(lag($above, 5), '<', 1, 'the others go on');
cmp_ok(published(), '>=', $above, 'as was published');
is($repeatable->query_safe('SELECT es_horizon()'), $before, 'REPEATABLE READ: and still holds it');
is($repeatable->query_safe("SELECT count(*) FROM es_read($before)"), '0', 'REPEATABLE READ: nothing to read');
end_of($repeatable);

#
# Promotion
#

$above = append_past_gap('above-4');
cmp_ok(lag($above, 5), '<', 1, 'published once more');
$reader->quit;
$primary->stop('immediate');
$long->quit;
$standby->promote;
holds_horizon_at_end($standby, 'promoted');
$slow = $standby->background_psql('postgres');
$slow->query_safe("BEGIN; SELECT es_append('slow-4', 'any', 'happened')");
$standby->safe_psql('postgres', "SELECT es_append('above-5', 'any', 'happened')");
is_query($standby, 'SELECT es_horizon()', $above, 'promoted: an append in flight holds the horizon');
end_of($slow, 'COMMIT');
holds_horizon_at_end($standby, 'promoted, and all ended');
$standby->stop;
done_testing();
