# Workers: how they come and go, with servers, databases and the extension, and that a
# consumer that reads only when it is notified misses nothing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use EventStoreWorkers;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $patience = 60;    # seconds to wait for what is to come
my $node = new_worker_store("eventstore.poll_interval = '200ms'");

use_seed();
has_workers('postgres', 2, 'two workers of the database');

#
# Ends of workers; a consumer that reads only when it is notified
#

my ($consumer, $last_read, @read);

sub connect_consumer
{
	$consumer = listen_to('postgres', 'es_events');
	read_on();
	return;
}

# A notification may come with the answer.
sub read_on
{
	my $again = 1;

	while ($again)
	{
		my $output = $consumer->query_safe("SELECT position FROM es_read($last_read)");

		push @read, $output =~ /^(\d+)$/mg;
		$last_read = $read[-1] if @read;
		$again = $output =~ /notification/;
	}
	return;
}

sub consume_until
{
	my ($test) = @_;
	my $end = time() + $patience;

	while (time() < $end && !$test->())
	{
		read_on() if heard($consumer);
		sleep 0.01;
	}
	return;
}

sub is_consumed
{
	my ($name) = @_;
	my $all = $node->safe_psql('postgres', "SELECT string_agg(position::text, ' ' ORDER BY position) FROM es_events");
	my ($last) = $all =~ /(\d+)$/;

	consume_until(sub { $last_read == $last });

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok("@read" eq $all, "$name: a consumer has every event, and each once");
	is_announced($name);
	return;
}

$last_read = 0;
connect_consumer();
is_consumed('before');

# SIGTERM, again and again
{
	my $load = start_load(8, 4);

	foreach (1 .. 4)
	{
		my $end = time() + 1.5;

		kill('TERM', workers('postgres'));
		consume_until(sub { time() > $end });
	}
	ok($load->finish, 'SIGTERM: appenders notice nothing');
	is_consumed('SIGTERM');
	has_workers('postgres', 2, 'SIGTERM: they come back');
	is(scalar(log_lines(qr/background worker "eventstore worker"/)), 0, 'SIGTERM: they ended with exit code 0');
}

$node->psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'eventstore launcher'});
ok($node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'eventstore launcher'}),
	'the launcher comes back');
has_workers('postgres', 2, 'and has new workers');
has_no_errors('SIGTERM');

sub survives
{
	my ($name, $how) = @_;
	my $load = start_load(60, 4);
	my $end = time() + 1;

	consume_until(sub { time() > $end });
	$how->();
	$load->finish;
	eval { $consumer->quit };
	await_server($node, 'postgres');
	connect_consumer();
	append('account-1');
	is_consumed($name);
	has_workers('postgres', 2, "$name: workers are there again");
	return;
}

survives('kill -9', sub {
	my ($worker) = workers('postgres');

	kill('KILL', $worker);
	# the server notices, and all sessions end
	foreach (1 .. $patience * 10)
	{
		last if log_lines(qr/all server processes terminated; reinitializing/);
		sleep 0.1;
	}
});
survives('a restart', sub { $node->restart });
{
	my $started;

	survives('a fast stop under load', sub {
		$started = time();
		$node->stop('fast');
		$started = time() - $started;
		$node->start;
	});
	cmp_ok($started, '<', 20, 'a fast stop under load does not take long');
}
$consumer->quit;
has_no_errors('ends');

#
# Databases and extensions that come and go
#

$node->safe_psql('postgres', 'CREATE DATABASE later');
# Workers come and go there.
sleep 5;
is(scalar(workers('later')), 0, 'no worker stays where there is no extension');
has_no_errors('without the extension');
foreach my $schema ('public', 'es')
{
	$node->safe_psql('later', "CREATE SCHEMA IF NOT EXISTS $schema; CREATE EXTENSION eventstore SCHEMA $schema;
		ALTER DATABASE later SET search_path = $schema");
	has_workers('later', 2, "schema $schema: workers come after CREATE EXTENSION");
	append('account-1', 'later');
	is_announced("schema $schema", 'later');
	my $started = time();
	$node->safe_psql('later', 'DROP EXTENSION eventstore');
	cmp_ok(time() - $started, '<', 20, "schema $schema: DROP EXTENSION does not take long");
	has_workers('later', 0, "schema $schema: workers go after it");
}

# Appenders to the new log still trust the workers of the old.
{
	my $hearer = listen_to('later', 'es_events');

	$node->safe_psql('later', 'CREATE EXTENSION eventstore SCHEMA es');
	is_announced('before another extension', 'later');
	append('account-1', 'later') foreach 1 .. 3;
	hear_until($hearer, sub { grep { $_->[1] == 3 } @_ });
	is_announced('before another extension', 'later');
	heard($hearer);
	$node->safe_psql('later',
		q{BEGIN; DROP EXTENSION eventstore; CREATE EXTENSION eventstore SCHEMA es; COMMIT;
		  SELECT es.es_append('account-1', 'any', 'x')});
	hears($hearer, 'es_events', 1, 'another extension: its first event is heard');
	$hearer->quit;
}

{
	my $started = time();
	my $offset = -s $node->logfile;

	$node->safe_psql('postgres', 'DROP DATABASE later WITH (FORCE)');
	cmp_ok(time() - $started, '<', 20, 'DROP DATABASE WITH (FORCE) does not take long');
	ok($node->wait_for_log(qr/starts no workers for database "later"/, $offset), 'the launcher knows that it is gone');
	has_no_errors('databases and extensions');
}

#
# A standby has none, until it is promoted
#

{
	my $standby = new_standby($node);

	$node->wait_for_catchup($standby);
	is_query($standby, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eventstore%'},
		'0', 'no worker on a standby');
	like(($standby->psql('postgres', '\set VERBOSITY verbose
			SELECT es_start_worker()'))[2], qr/55000/, 'es_start_worker is refused there');
	$standby->promote;
	ok($standby->poll_query_until('postgres',
			q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = 'postgres'}),
		'workers come after it is promoted');
	$standby->stop;
}
$node->stop;

#
# Without shared_preload_libraries
#

$node = new_plain_store();
{
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $hearer = listen_to('postgres', 'es_events');
	my ($worker, $position, @heard);

	$worker = $session->query_safe('SELECT es_start_worker()');
	is_query($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker'},
		$worker, 'plain: es_start_worker starts one');
	like(($node->psql('postgres', '\set VERBOSITY verbose
			SELECT es_start_worker()'))[2], qr/53400.*max_worker_processes/s, 'plain: there is no place for another');
	is_announced('plain: it serves the database');
	wait_for_senders($hearer, 'plain');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
	has_workers('postgres', 0, 'plain: it can be ended');
	$position = $session->query_safe(q{SELECT position FROM es_append('account-1', 'any', 'x')});
	@heard = hears($hearer, 'es_events', $position, 'plain: without it an append is heard');
	is(join(',', map { $_->[2] } grep { $_->[1] == $position } @heard), $pid, 'plain: from the appender');
	sleep 5;
	has_workers('postgres', 0, 'plain: and does not come back');
	is($session->query_safe('SELECT es_start_worker() > 0'), 't', 'plain: its place is free');
	$node->safe_psql('postgres', 'DROP EXTENSION eventstore');
	has_workers('postgres', 0, 'plain: it ends with the extension');
	$session->quit;
	$hearer->quit;
	has_no_errors('plain');
}
$node->stop;

done_testing();
