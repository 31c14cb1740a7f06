# Many run the same projections at once, while they change between sync and async, are
# paused and resumed, altered, renamed, dropped and created: every event is handled exactly once, by
# whoever it is.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreKills;
use EventStoreProjections;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = few_or_many(18, 40);
my $node = new_store(
	'modes',
	fsync   => 'off',
	workers => 2,
	conf    => q{
max_worker_processes = 12
});

use_seed();
create_read_models($node);
create_projections($node, 'batch_size => 20');

#
# Workers; with workers that are started by hand, runners and pollers
#

my $appenders;
{
	local $ENV{PGOPTIONS} = '-c lock_timeout=30s';
	$appenders = start_appenders($node, clients => 6, seconds => 150, rate => 50);
}
wait_until('appenders', sub { sql($node, 'SELECT count(*) > 1000 FROM es_events') eq 't' });
my $now = sql($node, 'SELECT max(position) FROM es_events');
is(sql($node, "SELECT es_wait('$_', $now, '60s')"), 't', "workers run $_") foreach projections();
my @runners = ((map { start_runner($node) } 1 .. 3), (map { start_poller($node) } 1 .. 2));
sql($node, 'SELECT es_start_worker()') foreach 1 .. 2;
wait_until('workers', sub { pids_of($node, 'worker') == 4 });
my %before = positions($node);
foreach my $time (1 .. 4)
{
	sleep 1;
	equals_fold($node, "runners and workers, $time s");
	positions_rise($node, \%before, "runners and workers, $time s");
}
cmp_ok(sql($node, 'SELECT max(lag_seconds) FROM es_projection_status'), '<', 60, 'and they keep up');

#
# Changes
#

# Not copied: appends are sync side by side, and it is ordered.
my @changing = grep { $_ ne 'copied' } projections();
my @changes = (
	[ 'sync' => sub { "SELECT es_alter_projection('$_[0]', mode => 'sync')" } ],
	[ 'async' => sub { "SELECT es_alter_projection('$_[0]', mode => 'async')" } ],
	[ 'paused' => sub { "SELECT es_pause_projection('$_[0]')" } ],
	[ 'resumed' => sub { "SELECT es_resume_projection('$_[0]')" } ],
	[ 'both ways at once' => sub { "BEGIN; SELECT es_alter_projection('$_[0]', mode => 'sync');
		SELECT es_alter_projection('$_[0]', mode => 'async'); COMMIT" } ],
	[ 'rolled back' => sub { "BEGIN; SELECT es_resume_projection('$_[0]'); SELECT es_alter_projection('$_[0]', mode => 'sync');
		SELECT pg_sleep(0.05); ROLLBACK" } ],
	[ 'given its code' => sub { "SELECT es_alter_projection('$_[0]', " . definition_of($_[0]) . ')' } ],
	[ 'renamed' => sub { "SELECT es_rename_projection('$_[0]', 'away'), es_rename_projection('away', '$_[0]')" } ]);
my ($longest, %count) = (0);

foreach my $round (1 .. $rounds)
{
	my $projection = $changing[ rand @changing ];
	my ($change, $sql) = @{ $changes[ $round % @changes ] };
	my $began = time();

	sql($node, $sql->($projection));
	$longest = time() - $began if time() - $began > $longest;
	$count{$change}++;
	sleep rand 0.15;
	next if $round % 4;
	equals_fold($node, "round $round");
}

# From the whole log to sync while it grows, again and again.
foreach my $time (1 .. 4)
{
	sql($node, q{SELECT es_drop_projection('by_category'), es_drop_projection('by_type')});
	sql($node, 'TRUNCATE by_category, by_type');
	create_projections($node, q{mode => 'sync', batch_size => 500}, 'postgres', 'by_category', 'by_type');
	equals_fold($node, "created as sync, $time");
}

# Two sessions change two projections at once, and a third rebuilds.
my @changers = map {
	start_repeating($node, "changer", "SELECT es_alter_projection('$_', mode => 'sync');
SELECT pg_sleep(0.01);
SELECT es_alter_projection('$_', mode => 'async');\n")
} qw(by_handler by_category);
foreach my $time (1 .. 3)
{
	my ($status, $out, $err) = $node->psql('postgres', 'SET client_min_messages = error; SELECT es_rebuild_projection(\'by_type\')');

	is("$status $err", '0 ', "rebuild while others change, $time");
	equals_fold($node, "several change at once, $time");
}
end_psql(@changers);

ok($appenders->pumpable, 'appenders have been there all the time');
end_psql($appenders, @runners);
sql($node, 'SELECT es_resume_projection(name) FROM es_projections');
sql($node, "SELECT es_alter_projection(name, mode => 'async') FROM es_projections");
catch_up($node);
wait_until('all is caught up', sub { sql($node, 'SELECT bool_and(position = es_horizon()) FROM es_projections') eq 't' });
equals_fold($node, 'at the end');
holds_versions_dense($node, 'at the end');
is_query($node, q{SELECT bool_and(state = 'running' AND lag_events = 0 AND attempts = 0) FROM es_projection_status}, 't',
	'at the end: nothing is wrong');
is_query($node, q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'es_events'::regclass AND tgfoid = 'es_projection_sync'::regproc AND tgenabled <> 'D'},
	'0', 'at the end: no trigger is left');
unlike(slurp_file($node->logfile), qr/ERROR: (?!.*(?:deadlock detected|canceling (?:statement|autovacuum)))/, 'no error but a deadlock of appenders');
my $deadlocks = () = slurp_file($node->logfile) =~ /deadlock detected/g;
diag(sprintf 'modes: %d events, %d changes (%s), the longest %.0f ms, %d deadlocks',
	sql($node, 'SELECT count(*) FROM es_events'), $rounds, join(', ', map { "$count{$_} $_" } sort keys %count),
	1000 * $longest, $deadlocks);
$node->stop;
done_testing();
