# Every event takes effect exactly once in every read model, whatever is killed:
# appenders, runners of projections, or the whole server.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreKills;
use EventStoreProjections;
use EventStoreTest;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = few_or_many(10, 25);    # there are 10 kinds
my $events = few_or_many(40_000, 200_000);
my $rate = $events / $rounds / 25;    # transactions a second, of 15 events; a round has about 2 seconds
my $longest = 1.6;                # seconds of a round before the kill
my $began = time();

# Only processes are killed: what was written is there.
my $node = new_store(
	'crash',
	fsync   => 'off',
	workers => 2,
	conf    => q{
restart_after_crash = on
deadlock_timeout = 100ms
});

sub event_count
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM es_events');
}

# What is done in a round; false if the process has ended by itself.
my %kill = (
	'kill -9 of a worker'    => sub { crash($node, 'worker') },
	'kill -9 of a runner'    => sub { crash($node, 'runner') },
	'kill -9 of an appender' => sub { crash($node, 'appender') },
	'kill -9 of the postmaster' => sub { kill_postmaster($node); 1 },
	'terminate a worker'    => sub { signal_one($node, 'pg_terminate_backend', 'worker') },
	'terminate a runner'    => sub { signal_one($node, 'pg_terminate_backend', 'runner') },
	'terminate an appender' => sub { signal_one($node, 'pg_terminate_backend', 'appender') },
	'cancel a worker'   => sub { signal_one($node, 'pg_cancel_backend', 'worker') },
	'cancel everybody' => sub {
		$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
			WHERE application_name IN ('appender', 'runner') OR backend_type = 'eventstore worker'});
	},
	'an immediate stop' => sub { $node->stop('immediate'); $node->start; 1 });
my %count;

use_seed();
create_read_models($node);
create_projections($node, 'batch_size => 100');

my @kinds;
my %before = positions($node);
my @runners;
my $kills = 0;
my $behind = 0;

foreach my $round (1 .. $rounds)
{
	@kinds = shuffle sort keys %kill unless @kinds;
	my $kind = shift @kinds;
	my $name = "round $round ($kind)";
	my $end = time() + $longest * (0.3 + 0.7 * rand);

	my $appenders = start_appenders($node, clients => 4, seconds => 60, rate => $rate);
	@runners = map { $_->pumpable ? $_ : do { end_psql($_); () } } @runners;
	push @runners, @runners % 2 ? start_poller($node) : start_runner($node) while @runners < 2;
	sleep 0.02 while time() < $end;
	one_of($node, $_) foreach qw(appender worker);
	positions_rise($node, \%before, "$name, before");
	$behind++ if $node->safe_psql('postgres', 'SELECT min(position) < es_horizon() FROM es_projections') eq 't';
	my $killed = $kill{$kind}->();
	ok($killed, "$name: somebody was there");
	$kills++ if $killed;
	$count{$kind}++ if $killed;
	equals_fold($node, $name);
	positions_rise($node, \%before, $name);
	end_psql($appenders);
}

# The rest of the events, with runners; then no more is to come.
while (event_count() < $events)
{
	$node->safe_psql('postgres', q{
		SELECT es_append_batch('order-' || s, 'any', array_fill('paid'::text, ARRAY[100]),
		                       array_fill('{"n": 7}'::jsonb, ARRAY[100]))
		  FROM generate_series(1, 20) AS s});
}
end_psql(@runners);
catch_up($node);
wait_until('all is caught up', sub {
		$node->safe_psql('postgres', 'SELECT bool_and(position = es_horizon()) FROM es_projections') eq 't' });
holds_versions_dense($node, 'at the end');
holds_horizon_at_end($node, 'at the end');
equals_fold($node, 'at the end');
positions_rise($node, \%before, 'at the end');
is_query($node, q{SELECT count(*), bool_and(state = 'running' AND attempts = 0 AND last_error IS NULL
                         AND lag_events = 0 AND lag_seconds = 0 AND parked = 0) FROM es_projection_status},
	projections() . '|t', 'at the end: all run, and none has an error');
is_query($node, 'SELECT count(*) = (SELECT count(*) FROM es_events) FROM copied', 't',
	'at the end: every event was copied once');
diag(sprintf 'projection crashes: %d events, %d rounds, %d kills, %d of them with events to be handled, %.1f s: %s',
	event_count(), $rounds, $kills, $behind, time() - $began,
	join ', ', map { "$count{$_} $_" } sort keys %count);
$node->stop;
done_testing();
