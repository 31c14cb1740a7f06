# Failover of one shard under load (doc/operate/scale.md): its primary is killed, and its synchronous standby is
# promoted. The new primary has the slots. Writers repeat with the same ids, and consumers go on. Nothing that was
# acknowledged is lost, and nothing is stored twice.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreRouted;
use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $writers = 2;
my $shard = new_store('shard', streaming => 1, conf => "max_wal_senders = 10\nautovacuum = off\n");
sql($shard, q{SELECT es_create_subscription('all', partitions => 2)});
my %slot = slots_of_streams($shard, $writers);

# It has the slots of these streams, and lacks another one.
my ($lacking) = grep { my $n = $_; !grep { $_ == $n } values %slot } 0 .. 1023;
my $slots = '{[0,' . $lacking . '),[' . ($lacking + 1) . ',1024)}';
$slots =~ s/\[0,0\),//;
sql($shard, "SELECT es_set_slots('$slots')");
my $other = $shard->safe_psql('postgres', "SELECT s FROM (SELECT 'o-' || n AS s FROM generate_series(1, 20000) n) x WHERE es_partition(s, 1024) = $lacking LIMIT 1");
my $standby = PostgreSQL::Test::Cluster->new('successor');
$shard->backup('base');
$standby->init_from_backup($shard, 'base', has_streaming => 1);
$standby->start;
sql($shard, q{ALTER SYSTEM SET synchronous_standby_names = '*'}, q{SELECT pg_reload_conf()});
ok($shard->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'}), 'the shard has a synchronous standby');

# A consumer of the shard, wherever it is. It may get an event again, since its note is not in the store.
sub consume_routed
{
	until (is_to_stop('consumers'))
	{
		my ($done, $out) = run_psql(routed(0), q{SELECT token, id, stream, version FROM es_poll('all', 'c', 100)});
		my %tokens;

		foreach my $row ($done ? split(/\n/, $out) : ())
		{
			my ($token, @event) = split /\|/, $row;

			$tokens{$token} = 1;
			append_to_file("$routed_folder/delivered", "@event\n");
		}
		run_psql(routed(0), "SELECT es_ack('all', $_)") foreach keys %tokens;
		usleep(50_000) unless %tokens;
	}
	return;
}

sub await_appends
{
	my ($name, $count) = @_;
	my $known = () = acknowledged($writers);

	wait_until($name, sub { (() = acknowledged($writers)) >= $known + $count });
	return pass($name);
}

write_routes([ 0, 1024, $shard->connstr('postgres') ]);
start_child(\&consume_routed);
foreach my $number (1 .. $writers)
{
	start_child(sub { write_routed($number, %slot) });
}
await_appends('the shard takes appends', few_or_many(30, 300));

my $begin = time;
$shard->stop('immediate');
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->reload;
$standby->promote;
write_routes([ 0, 1024, $standby->connstr('postgres') ]);
is($standby->safe_psql('postgres', 'SELECT es_slots()'), $slots, 'the new primary has the slots');
await_appends('appends go on', 1);
note(sprintf '%.2f s from the kill to the next append', time - $begin);
like((run_psql($standby->connstr('postgres'), "SELECT es_append('$other', 'any', 'e')"))[2], qr/ES009/, 'a stream of another shard is refused');
await_appends('writers go on', few_or_many(20, 200));
stop_clients('writers');
wait_until('all appends are answered', sub { my $n = () = acknowledged($writers); usleep(500_000); $n == (() = acknowledged($writers)) });
ok($standby->poll_query_until('postgres', q{SELECT bool_and(greatest(position, reached) >= es_horizon() AND leased_until IS NULL) FROM es_partitions}), 'all is delivered');
stop_clients('consumers');
await_children();

my @acknowledged = acknowledged($writers);
my %stored;
$stored{$_}++ foreach split /\n/, $standby->safe_psql('postgres', q{SELECT id || ' ' || stream || ' ' || version FROM es_events});
my %delivered = map { $_ => 1 } lines_of('delivered');
is(join('', lines_of('errors')), '', 'no client has failed');
is(join("\n", grep { ($stored{$_} // 0) != 1 } @acknowledged), '', 'every acknowledged event is stored once');
is(scalar(keys %stored), scalar(@acknowledged), 'and no other one');
is(join("\n", grep { !$delivered{$_} } @acknowledged), '', 'every one was delivered');
holds_versions_dense($standby, 'successor');
is($standby->safe_psql('postgres', q{SELECT string_agg(reason, ',' ORDER BY number) FROM es_incarnations}), 'created,promoted', 'it is another incarnation');
$standby->stop;
done_testing();
