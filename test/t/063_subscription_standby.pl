# On a standby nothing is delivered; the status can be read.  After a promotion
# consumers go on from where the standby was: every event that it has is handled, and
# a token from before is void, and what was in flight is delivered again at the same attempt.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreProjections;
use EventStoreSubscriptions;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $folder = PostgreSQL::Test::Utils::tempdir();
my $primary = new_store(
	'primary',
	fsync     => 'off',
	streaming => 1,
	workers   => 1);

use_seed();

$primary->safe_psql('postgres', q{
	CREATE TABLE taken (at bigint GENERATED ALWAYS AS IDENTITY, position bigint, stream text, version bigint);
	SELECT es_append('held-1', 'any', 'x') FROM generate_series(1, 10);
	SELECT es_create_subscription('held', 'held', lease => '1 hour');
	SELECT es_create_subscription('other', 'held', lease => '1 hour');
	SELECT es_create_subscription('outside', partitions => 4, lease => '1s');
	SELECT es_create_subscription('inside', partitions => 3, lease => '1s', max_attempts => 1000)});

my $standby = new_standby($primary);

# Under load
append_to_file("$folder/connection", $primary->connstr('postgres'));
my $appenders = start_appenders($primary, clients => 3, seconds => 100, rate => 60);
my @consumers = (
	(map { start_consumer(folder => $folder, subscription => 'outside', name => $_) } 'ann', 'ben', undef),
	(map { start_consumer(folder => $folder, subscription => 'inside', inside => 1, name => $_) } 'cora', undef));

sub count_of
{
	my ($node, $query) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FROM $query");
}

wait_until('events there', sub { count_of($standby, 'es_events') > 1500 });

#
# The standby
#

my ($partition, $token) = split /\|/,
  $primary->safe_psql('postgres', q{SELECT partition, max(token) FROM es_poll('held', 'dora', 4) GROUP BY 1});

# The commit of a delivery is not waited for.
$primary->safe_psql('postgres', q{SELECT es_append('late-1', 'any', 'paid', '{"n": 1}')});
$primary->wait_for_catchup($standby);
foreach my $statement (
	q{SELECT * FROM es_poll('held', 'dora')},
	q{SELECT * FROM es_poll('held', 'dora', wait => '10s')},
	q{SELECT * FROM es_poll('held', NULL, 3, after_token => } . $token . ')',
	q{SELECT * FROM es_poll('not there')},
	"SELECT es_ack('held', $token)",
	"SELECT es_nack('held', $token, 1, 'no')",
	q{SELECT es_seek('held', 0)},
	q{SELECT es_create_subscription('another')},
	q{SELECT es_drop_subscription('held')})
{
	my $began = time();
	my (undef, undef, $err) =
	  $standby->psql('postgres', "\\set VERBOSITY verbose\n$statement", on_error_stop => 1, timeout => 60);

	like($err, qr/ERROR:  25006: /, "on the standby: $statement");
	cmp_ok(time() - $began, '<', 5, 'at once');
}
is($standby->safe_psql('postgres', q{
		SELECT subscription, partition, consumer, position, in_flight, parked, horizon > 0, lag_events, lag_seconds > 0,
		       lease_left > '59 minutes' FROM es_subscription_status WHERE subscription = 'held'}),
	'held|0|dora|0|4|0|t|10|t|t', 'on the standby: status');
is(count_of($standby, q{es_subscription_status WHERE subscription IN ('inside', 'outside') AND horizon > 0}), 7,
	'on the standby: status of those at work');
is($standby->safe_psql('postgres', q{SELECT name, categories, partitions FROM es_subscriptions WHERE name = 'outside'}),
	'outside||4', 'on the standby: subscriptions');

# What the standby does not get any more
$standby->safe_psql('postgres', q{ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()});
ok($standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver'), 'it receives no more');
my $lost_token = $primary->safe_psql('postgres', q{SELECT max(token) FROM es_poll('other', 'dora', 4)});
$primary->safe_psql('postgres', q{SELECT es_append('lost-1', 'any', 'paid', '{"n": 1}')});
sleep 0.5;

#
# In the middle of all of it the primary is gone
#

my %before = checkpoints($standby);
$primary->stop('immediate');
end_psql($appenders);
unlink "$folder/connection";
append_to_file("$folder/connection", $standby->connstr('postgres'));
$standby->promote;
checkpoints_rise($standby, \%before, 'promoted');

is($standby->safe_psql('postgres', q{SELECT count(*) || ' ' || min(version) || ' ' || max(attempt) FROM es_poll('held', 'eve')}),
	'10 1 1', 'promoted: what was in flight is delivered again, and the rest');
foreach my $statement ("SELECT es_ack('held', $token)", "SELECT es_nack('held', $token, 1, 'no')",
	"SELECT * FROM es_poll('held', 'dora', after_token => $token)",
	"SELECT es_ack('other', $lost_token)", "SELECT es_nack('other', $lost_token, 1, 'no')",
	"SELECT * FROM es_poll('other', 'dora', after_token => $lost_token)")
{
	like(($standby->psql('postgres', "\\set VERBOSITY verbose\n$statement"))[2], qr/ERROR:  ES006: /,
		"promoted: a token from before is void: $statement");
}
is($standby->safe_psql('postgres', qq{SELECT count(*) || ' ' || min(attempt), min(token) <> $lost_token FROM es_poll('other', 'eve')}),
	'10 1|t', 'promoted: those events are delivered again');

$appenders = start_appenders($standby, clients => 3, seconds => 2, rate => 60);
ok(finish_psql($appenders), 'promoted: appends go on');
stop_consumers($folder, @consumers);
@consumers = (
	start_consumer(folder => $folder, subscription => 'outside', name => 'fay', nacks => 0),
	start_consumer(folder => $folder, subscription => 'inside', inside => 1, name => 'gus'));
wait_until('all is handled', sub {
		$standby->safe_psql('postgres', q{SELECT count(es_retry(id)) FROM (SELECT min(id) AS id FROM es_failures
			WHERE message IS NOT NULL AND retry_at IS NULL GROUP BY stream) AS f});
		checkpoints_rise($standby, \%before, 'promoted, later');
		$standby->safe_psql('postgres', q{
			SELECT bool_and(lag_events = 0 AND in_flight = 0 AND parked = 0) AND NOT EXISTS (SELECT FROM es_failures)
			  FROM es_subscription_status WHERE subscription IN ('inside', 'outside')}) eq 't' }, 0.3);
stop_consumers($folder, @consumers);

# What the standby has not got is another timeline's.
my %handled = map { $_->[2] => 1 } grep { $_->[0] eq 'H' } read_records($folder);
my @ids = split /\n/, $standby->safe_psql('postgres', 'SELECT id FROM es_events');
my @missed = grep { !$handled{$_} } @ids;

is(scalar(@missed), 0, 'outside: every event that it has was handled') or diag(join "\n", splice @missed, 0, 10);
is_query($standby, q{SELECT count(*) FROM es_events LEFT JOIN (SELECT position, count(*) AS n FROM taken GROUP BY position) AS t USING (position)
	WHERE n IS DISTINCT FROM 1},
	'0', 'inside: every event exactly once');
is_query($standby, q{SELECT count(*) FROM (SELECT version, row_number() OVER (PARTITION BY stream ORDER BY at) AS n FROM taken) AS t
	WHERE version <> n}, '0', 'inside: in the order of its stream');
holds_versions_dense($standby, 'at the end');
note(sprintf 'standby: %d events, %d handled outside on both', scalar(@ids), scalar keys %handled);
$standby->stop;
done_testing();
