# The server, a database or the extension goes while handlers are busy: it does not
# wait for them longer than it must, nothing is left half done, and what comes again
# goes on.
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

my $quickly = 15;    # seconds, where a handler would take minutes
my $node = new_store(
	'end',
	fsync     => 'off',
	extension => 0,
	workers   => 2,
	conf      => q{
eventstore.databases = 'app, bare, missing'
max_worker_processes = 20
restart_after_crash = on
log_line_prefix = '%m [%p] %b %q%a '
});

sub in_app
{
	my ($sql) = @_;

	return $node->safe_psql('app', $sql);
}

# A handler that writes, and then sleeps as long as the table slow says.
sub create_app
{
	$node->safe_psql('postgres', 'CREATE DATABASE app');
	in_app('CREATE EXTENSION eventstore');
	create_read_models($node, 'app');
	in_app(q{
		CREATE TABLE slow (seconds float8);
		INSERT INTO slow VALUES (0);
		ALTER FUNCTION by_handler RENAME TO by_handler_quickly;
		ALTER FUNCTION by_category RENAME TO by_category_quickly;
		CREATE FUNCTION by_handler(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM by_handler_quickly(event), pg_sleep(seconds) FROM slow;
		END $$;
		CREATE FUNCTION by_category(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM by_category_quickly(event);
			-- busy without ever waiting
			FOR i IN 1 .. (SELECT least(seconds * 30000000, 2000000000) FROM slow) LOOP
				NULL;
			END LOOP;
		END $$});
	create_projections($node, 'batch_size => 10', 'app', qw(by_category by_handler copied));
	return;
}

my @names = qw(by_category by_handler copied);

sub append_some
{
	return in_app(q{SELECT es_append_batch('account-1', 'any', array_fill('paid'::text, ARRAY[15]), array_fill('{"n": 1}'::jsonb, ARRAY[15]))});
}

# Workers of a database that are in a transaction of some age.
sub busy_workers
{
	my ($seconds) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT count(*) FROM pg_stat_activity
		 WHERE backend_type = 'eventstore worker' AND datname = 'app'
		   AND clock_timestamp() - xact_start > interval '$seconds s'});
}

# So many workers are in the middle of a batch, in which an event takes so long.
sub make_busy
{
	my ($seconds, $count) = @_;

	in_app("UPDATE slow SET seconds = $seconds");
	append_some() foreach 1 .. 10;
	wait_until("$count workers are busy", sub { busy_workers(0.5) >= $count });
	return;
}

sub workers_catch_up
{
	my ($name) = @_;
	my $now;

	# one that has begun again sleeps for long
	in_app(q{UPDATE slow SET seconds = 0;
		SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		 WHERE backend_type = 'eventstore worker' AND datname = 'app' AND xact_start IS NOT NULL});
	append_some();
	$now = in_app('SELECT max(position) FROM es_events');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $projection (@names)
	{
		is(in_app("SELECT es_wait('$projection', $now, '60s')"), 't', "$name: workers go on with $projection");
	}
	equals_fold($node, $name, database => 'app', projections => \@names);
	is(in_app(q{SELECT count(*) FROM es_projection_status WHERE attempts > 0 OR last_error IS NOT NULL OR state <> 'running'}),
		'0', "$name: an end is no failure of a handler");
	return;
}

sub takes
{
	my ($name, $code) = @_;
	my $began = time();

	$code->();
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok(time() - $began, '<', $quickly, $name);
	diag(sprintf '%s: %.1f s', $name, time() - $began);
	return;
}

sub errors_since
{
	my ($offset) = @_;

	return join "\n", slurp_file($node->logfile, $offset) =~ /^.*(?:ERROR|PANIC|WARNING|TRAP|terminated by signal).*$/mg;
}

$node->safe_psql('postgres', 'CREATE DATABASE bare');
create_app();
append_some();
workers_catch_up('at first');

#
# The server stops
#

make_busy(600, 2);
my $offset = -s $node->logfile;
takes('a fast shutdown in the middle of handlers', sub { $node->stop('fast') });
is(errors_since($offset), '', 'a fast shutdown says no error');
$node->start;
equals_fold($node, 'after the shutdown', database => 'app', projections => \@names);
workers_catch_up('after the shutdown');

make_busy(600, 2);
$offset = -s $node->logfile;
takes('a restart in the middle of handlers', sub { $node->restart });
workers_catch_up('after the restart');

# Sessions that wait, and one that runs the batch itself.
in_app('UPDATE slow SET seconds = 600');
append_some();
my @waiting = map { start_repeating($node, 'waiting', $_, 'app') }
  "SELECT es_wait('by_handler', (SELECT max(position) FROM es_events), '10min');\n", "CALL es_work(false);\n";
wait_until('sessions', sub { pids_of($node, 'waiting') == 2 });
takes('a fast shutdown under es_wait and es_work', sub { $node->stop('fast') });
end_psql(@waiting);
$node->start;
workers_catch_up('after another shutdown');

#
# The extension goes
#

make_busy(0.3, 1);    # some seconds for a batch
my $runner = start_runner($node, 'app');
wait_until('a runner', sub { pids_of($node, 'runner') });
$offset = -s $node->logfile;
my ($busy) = split /\n/, in_app(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = 'app'
	ORDER BY xact_start NULLS LAST LIMIT 1});
in_app("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = 'app' AND pid <> $busy");
takes('DROP EXTENSION', sub { in_app('DROP EXTENSION eventstore CASCADE') });
wait_until('workers end', sub {
		$node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = 'app'}) eq '0' });
sleep 4;    # the launcher looks again
is(in_app(q{SELECT to_regclass('es_events') IS NULL, count(*) > 0 FROM by_handler}), 't|t', 'what was projected stays');
unlike(errors_since($offset), qr/worker|PANIC|TRAP|signal/, 'no worker has an error');
end_psql($runner);
$node->safe_psql('postgres', 'DROP DATABASE app WITH (FORCE)');
create_app();
append_some();
workers_catch_up('a new extension');

#
# The database goes
#

make_busy(600, 2);
like(($node->psql('postgres', 'DROP DATABASE app'))[2], qr/is being accessed by other users/,
	'DROP DATABASE is refused');
$offset = -s $node->logfile;
takes('DROP DATABASE WITH (FORCE)', sub { $node->safe_psql('postgres', 'DROP DATABASE app WITH (FORCE)') });
sleep 4;
unlike(errors_since($offset), qr/PANIC|TRAP|signal/, 'the server goes on');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventstore worker'}),
	'0', 'there are no workers');
create_app();
append_some();
workers_catch_up('a new database');

# Nothing is said of a database without the extension, however long it stays so; and
# one that does not exist is named once.
$offset = 0;
my $log = slurp_file($node->logfile);
unlike($log, qr/ERROR.*bare|bare.*ERROR/, 'a database without the extension is no error');
my @named = $log =~ /missing/g;
my @starts = $log =~ /database system is ready to accept connections/g;
cmp_ok(scalar(@named), '<=', 2 * @starts, 'a database that is not there is named once a start');
$node->safe_psql('bare', q{CREATE EXTENSION eventstore});
create_read_models($node, 'bare');
create_projections($node, 'batch_size => 10', 'bare', @names);
$node->safe_psql('bare', q{SELECT es_append('account-1', 'any', 'paid', '{"n": 1}')});
is($node->safe_psql('bare', q{SELECT es_wait('copied', 1, '60s')}), 't', 'CREATE EXTENSION brings workers');

takes('the last shutdown', sub { $node->stop('fast') });
done_testing();
