# Workers: what listeners hear of them.
#
# How long something takes is only measured against what it would take if it
# did not work: a worker that is not woken looks after poll_interval.
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
my $node = new_worker_store("eventstore.poll_interval = '5min'");

use_seed();

#
# Waking; it is minutes until a worker would look by itself
#

has_workers('postgres', 2, 'two workers of the database');
is_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventstore launcher'},
	'1', 'one launcher');
is_query($node, q{SELECT DISTINCT application_name FROM pg_stat_activity WHERE backend_type = 'eventstore worker'},
	'eventstore worker', 'workers have a name');

my @channels = ('es_events', 'es_events:account', 'es_events:order');
my $listener = listen_to('postgres', @channels);

wait_for_senders($listener, 'start');
{
	my ($account, $order) = map { append("$_-1") } qw(account order);
	my @heard = hears($listener, 'es_events:order', $order, 'a category is heard');
	my %worker = map { $_ => 1 } workers('postgres');

	push @heard, hear_until($listener, sub { 1 });
	ok(scalar(grep { $_->[0] eq 'es_events:account' && $_->[1] == $account } @heard), 'so is another');
	ok(scalar(grep { $_->[0] eq 'es_events' && $_->[1] == $order } @heard), 'so is the log');
	is(scalar(grep { !$worker{ $_->[2] } } @heard), 0, 'all of it came from workers');
}

# No notification is beyond the horizon, and they go on when it rises.
foreach my $end ('COMMIT', 'ROLLBACK', 'SAVEPOINT', 'disconnect')
{
	my $slow = $node->background_psql('postgres');
	my ($held, $passed, $started, @heard);

	$slow->query_safe('BEGIN');
	$slow->query_safe('SAVEPOINT a') if $end eq 'SAVEPOINT';
	$held = $slow->query_safe(q{SELECT position FROM es_append('slow-1', 'any', 'x')});
	$passed = append('order-1');
	append('account-1') foreach 1 .. 5;
	sleep 0.5;
	@heard = heard($listener);
	is(scalar(grep { $_->[1] >= $held } @heard), 0, "$end: no notification is beyond the horizon");
	$started = time();
	$slow->query_safe('ROLLBACK TO a') if $end eq 'SAVEPOINT';
	$slow->query_safe($end eq 'SAVEPOINT' ? 'COMMIT' : $end) unless $end eq 'disconnect';
	$slow->quit;
	hears($listener, 'es_events:order', $passed, "$end: what lies above it is notified when it rises");
	cmp_ok(time() - $started, '<', $patience, "$end: at once");
}

# An append that fails has drawn its position, too.
{
	my $slow = $node->background_psql('postgres', on_error_stop => 0);
	my $passed;

	$node->safe_psql('postgres', q{
		CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RAISE division_by_zero; END';
		CREATE TRIGGER fail AFTER INSERT ON es_events FOR EACH ROW WHEN (NEW.type = 'bad') EXECUTE FUNCTION fail()});
	$slow->query_until(qr/sent/, "\\echo sent\nSELECT es_append('slow-1', 'any', 'bad');\n");
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
	$passed = append('order-1');
	hears($listener, 'es_events:order', $passed, 'an append that fails: what lies above it is notified');
	$slow->quit;
	$node->safe_psql('postgres', 'DROP TRIGGER fail ON es_events');
}

# A worker that waits holds no session back.
{
	my $busy = q{SELECT count(*) FROM pg_stat_activity
	              WHERE backend_type = 'eventstore worker' AND datname = 'postgres'
	                AND (state <> 'idle' OR backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR xact_start IS NOT NULL)};

	ok($node->poll_query_until('postgres', "SELECT 0 = ($busy)"), 'workers come to rest');
	foreach (1 .. 5)
	{
		sleep 0.3;
		is_query($node, $busy, '0', 'an idle worker has neither transaction nor snapshot');
	}
}

#
# One notification for many transactions
#

foreach my $interval (200, 20)
{
	my ($started, $count, $first, $last, $elapsed, @heard);

	set_conf('eventstore.notify_interval' => $interval);
	# A worker that pauses keeps the interval that it had before.
	sleep 0.5;
	heard($listener);
	$first = append('order-1');
	hears($listener, 'es_events:order', $first, "interval of $interval ms: the first is heard");
	$started = time();
	ok(start_load(2, 4)->finish, "interval of $interval ms: load");
	$last = append('order-1');
	@heard = hears($listener, 'es_events:order', $last, "interval of $interval ms: the last is heard");
	$elapsed = time() - $started;
	$count = grep { $_->[0] eq 'es_events' } @heard;
	cmp_ok($count, '<=', $elapsed * 1000 / $interval + 2, "interval of $interval ms: notifications keep to it");
	cmp_ok($count, '<', ($last - $first) / 2, "interval of $interval ms: they are fewer than commits");
	is("@{[ sort { $a <=> $b } map { $_->[1] } grep { $_->[0] eq 'es_events' } @heard ]}",
		"@{[ map { $_->[1] } grep { $_->[0] eq 'es_events' } @heard ]}",
		"interval of $interval ms: they ascend");
}

#
# From here on workers look by themselves, too
#

set_conf('eventstore.poll_interval' => '200ms');
is_announced('after SIGHUP');

# COMMIT PREPARED wakes nothing.
{
	my $prepared = $node->safe_psql('postgres',
		q{BEGIN; SELECT position FROM es_append('account-1', 'any', 'x'); PREPARE TRANSACTION 'a'});

	append('order-1');
	sleep 0.5;
	is(scalar(grep { $_->[1] >= $prepared } heard($listener)), 0, 'a prepared transaction does not notify');
	$node->safe_psql('postgres', q{COMMIT PREPARED 'a'});
	hears($listener, 'es_events:account', $prepared, 'it is when it is committed');
}

# A session's own setting.
{
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my ($position, @heard);

	$session->query_safe('SET eventstore.notify = commit');
	$position = $session->query_safe(q{SELECT position FROM es_append('account-1', 'any', 'x')});
	@heard = hears($listener, 'es_events:account', $position, 'notify = commit in a session: heard');
	ok(scalar(grep { $_->[2] == $pid } @heard), 'notify = commit in a session: from the session');
	$session->query_safe('SET eventstore.notify = off');
	$position = $session->query_safe(q{SELECT position FROM es_append('account-1', 'any', 'x')});
	hears($listener, 'es_events:account', $position, 'notify = off in a session: workers notify of it all the same');
	$session->quit;
}

# That of all: the workers' own.
{
	my ($position, $alone, @heard);
	my $end = time() + $patience;

	set_conf('eventstore.notify' => 'commit');
	while (!$alone && time() < $end)
	{
		my %worker = map { $_ => 1 } workers('postgres');

		heard($listener);
		$position = append('account-1');
		sleep 0.5;
		@heard = heard($listener);
		$alone = @heard == 2 && !grep { $worker{ $_->[2] } } @heard;
	}
	ok($alone, 'notify = commit: only the appender notifies');

	set_conf('eventstore.notify' => 'off');
	$end = time() + $patience;
	@heard = (1);
	while (@heard && time() < $end)
	{
		$position = append('account-1');
		sleep 0.5;
		@heard = heard($listener);
	}
	is(scalar(@heard), 0, 'notify = off: nothing notifies');

	set_conf('eventstore.notify' => 'auto');
	hears($listener, 'es_events:account', $position, 'notify = auto: workers notify of what was left out');
	wait_for_senders($listener, 'notify = auto');
}

# An error
{
	my ($position, @heard);

	$node->safe_psql('postgres', 'ALTER TABLE es_notified ADD CONSTRAINT stop CHECK (position < 0) NOT VALID');
	foreach my $try (1 .. $patience)
	{
		last if log_lines(qr/eventstore worker .*ERROR:.*"stop"/);
		append('account-1');
		sleep 1;
	}
	cmp_ok(scalar(log_lines(qr/eventstore worker .*ERROR:.*"stop"/)), '>', 0, 'an error of a worker is in the log');
	has_workers('postgres', 2, 'it stays all the same');
	@heard = ();
	foreach my $try (1 .. $patience)
	{
		my %worker = map { $_ => 1 } workers('postgres');

		$position = append('account-1');
		@heard = grep { $_->[1] == $position && !$worker{ $_->[2] } } hear_until($listener, sub { 1 });
		last if @heard;
		sleep 0.2;
	}
	cmp_ok(scalar(@heard), '>', 0, 'appenders notify by themselves then');
	$node->safe_psql('postgres', 'ALTER TABLE es_notified DROP CONSTRAINT stop');
	wait_for_senders($listener, 'after the error');
	is_announced('after the error');

	is(scalar(log_lines(qr/"Absent One"/)), 1, 'of a database that does not exist there is one message');

	# the others look at the log of what follows
	$node->rotate_logfile;
	$node->restart;
	$listener->quit;
	$listener = listen_to('postgres', @channels);
	wait_for_senders($listener, 'after the restart');
}

# What is set for the sessions of the database
{
	$node->safe_psql('postgres', q{ALTER DATABASE postgres SET default_transaction_read_only = on;
		ALTER DATABASE postgres SET default_transaction_isolation = 'serializable';
		ALTER DATABASE postgres SET statement_timeout = '1ms';
		ALTER DATABASE postgres SET lock_timeout = '1ms'});
	local $ENV{PGOPTIONS} = '-c default_transaction_read_only=off -c default_transaction_isolation=read\ committed'
	  . ' -c statement_timeout=0 -c lock_timeout=0';
	my @before = workers('postgres');

	kill('TERM', @before);
	ok($node->poll_query_until('postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN (@{[ join ', ', @before ]})"),
		'settings of the database: new workers');
	has_workers('postgres', 2, 'settings of the database: they come');
	wait_for_senders($listener, 'settings of the database');
	is_announced('settings of the database');
	has_no_errors('settings of the database');
	$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL');
}

# Workers that do not come to it
{
	my $locker = $node->background_psql('postgres');
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my ($position, @heard);

	$locker->query_safe('BEGIN; LOCK TABLE pg_extension');
	$node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_activity
		WHERE backend_type = 'eventstore worker' AND datname = 'postgres' AND wait_event_type = 'Lock'});
	sleep 1.5;
	$position = $session->query_safe(q{SELECT position FROM es_append('account-1', 'any', 'x')});
	@heard = hears($listener, 'es_events', $position, 'workers have been busy for long: an append is heard');
	ok(scalar(grep { $_->[2] == $pid } @heard), 'workers have been busy for long: the appender notifies');
	$locker->query_safe('COMMIT');
	$_->quit foreach $locker, $session;
	wait_for_senders($listener, 'workers are free again');
}

# A worker that waits for a lock: its statement can be cancelled, and it can be
# ended.
{
	my $locker = $node->background_psql('postgres');
	my $waiting = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND wait_event_type = 'Lock'};
	my ($worker, $started);

	$locker->query_safe('BEGIN; LOCK TABLE es_events');
	$node->poll_query_until('postgres', "SELECT count(*) = 2 FROM ($waiting) AS w");
	($worker) = split /\n/, $node->safe_psql('postgres', $waiting);
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($worker)");
	ok($node->wait_for_log(qr/\[$worker\] eventstore worker .*ERROR:  canceling statement/),
		'a cancelled statement of a worker is in the log');
	ok($node->poll_query_until('postgres', "SELECT $worker IN ($waiting)"), 'and it tries again');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
	ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $worker"),
		'a worker that waits for a lock can be ended');
	$started = time();
	$node->stop('fast');
	cmp_ok(time() - $started, '<', 20, 'the server can be stopped while a worker waits for a lock');
	is(scalar(log_lines(qr/background worker "eventstore worker"/)), 0, 'both ended with exit code 0');
	eval { $locker->quit };
	eval { $listener->quit };
	$node->start;
	$listener = listen_to('postgres', @channels);
	wait_for_senders($listener, 'after the lock');
	$listener->quit;
}
$node->stop;
done_testing();
