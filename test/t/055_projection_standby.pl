# On a standby read models are read, and nothing runs; after a promotion projections
# go on from where the standby was.
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

my $primary = new_store(
	'primary',
	fsync     => 'off',
	streaming => 1,
	workers   => 1,
	conf      => 'hot_standby_feedback = on');

use_seed();

create_read_models($primary);
create_projections($primary, q{batch_size => 50}, 'postgres', grep { $_ ne 'by_query' } projections());
create_projections($primary, q{mode => 'sync'}, 'postgres', 'by_query');
$primary->safe_psql('postgres', q{
	CREATE TABLE fixed ();
	ALTER FUNCTION by_category RENAME TO by_category_fixed;
	CREATE FUNCTION by_category(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF event.data ? 'poison' AND NOT EXISTS (SELECT FROM fixed) THEN RAISE EXCEPTION 'poison'; END IF;
		PERFORM by_category_fixed(event);
	END $$;
	SELECT es_alter_projection('by_category', on_failure => 'park', max_attempts => 1);
	SELECT es_append('account-1', 'any', 'paid', '{"n": 1, "poison": 1}')});

my $standby = new_standby($primary);
my $appenders = start_appenders($primary, clients => 3, seconds => 100, rate => 80);
my $runner = start_runner($primary);

wait_until('events there', sub { $standby->safe_psql('postgres', 'SELECT count(*) > 2000 FROM es_events') eq 't' });
ok($standby->poll_query_until('postgres', 'SELECT count(*) > 0 FROM es_failures'), 'a failure is seen on the standby');
my $failure = $standby->safe_psql('postgres', 'SELECT min(id) FROM es_failures');

# Everything that would write is refused; the server says why.
foreach my $statement (
	'SELECT es_run_projections()',
	q{SELECT es_run_projections('copied', 1)},
	'CALL es_work()',
	'CALL es_work(false)',
	q{SELECT es_create_projection('another', query => 'SELECT 1 FROM new_events')},
	q{SELECT es_alter_projection('copied', batch_size => 3)},
	q{SELECT es_alter_projection('copied', mode => 'sync')},
	q{SELECT es_pause_projection('copied')},
	q{SELECT es_resume_projection('copied')},
	q{SELECT es_rebuild_projection('copied')},
	q{SELECT es_drop_projection('copied')},
	"SELECT es_retry($failure)",
	"SELECT es_discard($failure)")
{
	my ($status, $out, $err) =
	  $standby->psql('postgres', "\\set VERBOSITY verbose\n$statement", on_error_stop => 1, timeout => 60);

	like($err, qr/ERROR:  25006: /, "on the standby: $statement");
}
is($standby->safe_psql('postgres', 'SELECT es_replaying()'), 'f', 'on the standby: es_replaying');
is(join(' ', pids_of($standby, 'worker')), '', 'on the standby: no worker');
equals_fold($standby, 'on the standby');
my $now = $primary->safe_psql('postgres', 'SELECT max(position) FROM es_events');
is($standby->safe_psql('postgres', "SELECT es_wait('$_', $now, '60s')"), 't', "on the standby: es_wait for $_")
  foreach projections();
is($standby->safe_psql('postgres', 'SELECT count(*) FROM es_projection_status WHERE horizon > 0'), 5, 'on the standby: status');
foreach my $time (1 .. 5)
{
	equals_fold($standby, "on the standby, $time");
	sleep 0.2;
}

# In the middle of all of it the primary is gone.
my %before = positions_there();
$primary->stop('immediate');
end_psql($appenders, $runner);
$standby->promote;
equals_fold($standby, 'promoted');

sub positions_there
{
	return map { split /\|/ } split /\n/,
	  $standby->safe_psql('postgres', 'SELECT name, position FROM es_projections');
}

positions_rise($standby, \%before, 'promoted');
$standby->safe_psql('postgres', q{SELECT es_append('order-1', 'any', 'paid', '{"n": 77}') FROM generate_series(1, 50)});
$now = $standby->safe_psql('postgres', 'SELECT max(position) FROM es_events');
is($standby->safe_psql('postgres', "SELECT es_wait('$_', $now, '60s')"), 't', "promoted: workers go on with $_")
  foreach projections();
equals_fold($standby, 'promoted, after more events');
$appenders = start_appenders($standby, clients => 3, seconds => 2, rate => 80);
$runner = start_runner($standby);
ok(finish_psql($appenders), 'promoted: appends go on');
$standby->safe_psql('postgres', q{
	INSERT INTO fixed DEFAULT VALUES;
	SELECT es_retry(min(id)) FROM es_failures GROUP BY stream;
	SELECT es_alter_projection('by_query', mode => 'async');
	SELECT es_rebuild_projection('by_handler')});
end_psql($runner);
catch_up($standby);
wait_until('all is caught up', sub {
		$standby->safe_psql('postgres', 'SELECT bool_and(position = es_horizon()) FROM es_projections') eq 't' });
equals_fold($standby, 'at the end');
is_query($standby, q{SELECT bool_and(state = 'running' AND lag_events = 0 AND attempts = 0 AND parked = 0) FROM es_projection_status},
	't', 'at the end: nothing is wrong');
diag(sprintf 'standby: %d events', $standby->safe_psql('postgres', 'SELECT count(*) FROM es_events'));
$standby->stop;
done_testing();
