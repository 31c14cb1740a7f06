# Workers: what listeners hear of them, and how they come and go.
#
# How long something takes is only measured against what it would take if it
# did not work: a worker that is not woken looks after poll_interval.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $folder = PostgreSQL::Test::Utils::tempdir();
my $patience = 60;    # seconds to wait for what is to come
my $node = new_store(
	'worker',
	streaming => 1,
	workers   => 2,
	conf      => q{
eventstore.databases = 'postgres, later, "Absent One"'
eventstore.poll_interval = '5min'
max_worker_processes = 12
restart_after_crash = on
log_line_prefix = '%m [%p] %b %q%a '
});

use_seed();

#
# What the tests share
#

sub set_conf
{
	my (%settings) = @_;

	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;
	return;
}

sub workers
{
	my ($database) = @_;

	return split /\n/, $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = '$database'");
}

sub has_workers
{
	my ($database, $count, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until('postgres',
			"SELECT count(*) = $count FROM pg_stat_activity
			  WHERE backend_type = 'eventstore worker' AND datname = '$database'"),
		$name);
	return;
}

# Waits until all that is there has been announced, and written down.
sub is_announced
{
	my ($name, $database) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($database // 'postgres',
			'SELECT position = (SELECT coalesce(max(position), 0) FROM es_events) FROM es_notified'),
		"$name: all is announced");
	return;
}

sub append
{
	my ($stream, $database) = @_;

	return $node->safe_psql($database // 'postgres',
		"SELECT position FROM es_append('$stream', 'any', 'x')");
}

# A session that hears.
sub listen_to
{
	my ($database, @channels) = @_;
	my $session = $node->background_psql($database);

	$session->query_safe(qq{LISTEN "$_"}) foreach @channels;
	return $session;
}

# What it has heard since the last time: [channel, position, process].
sub heard
{
	my ($session) = @_;
	my $output = $session->query_safe('SELECT 1');
	my @heard;

	push @heard, [ $1, $2, $3 ]
	  while $output =~ /notification "([^"]+)" with payload "(\d+)" received from server process with PID (\d+)/g;
	return @heard;
}

# All it hears until the test of that is true.
sub hear_until
{
	my ($session, $test) = @_;
	my $end = time() + $patience;
	my @heard;

	while (time() < $end)
	{
		push @heard, heard($session);
		last if $test->(@heard);
		sleep 0.02;
	}
	return @heard;
}

sub hears
{
	my ($session, $channel, $position, $name) = @_;
	my @heard = hear_until($session, sub { grep { $_->[0] eq $channel && $_->[1] == $position } @_ });

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(scalar(grep { $_->[0] eq $channel && $_->[1] == $position } @heard), $name)
	  or diag(join ', ', map { "@$_" } @heard);
	return @heard;
}

# Waits until appenders leave their notifications to workers, who are there.
sub wait_for_senders
{
	my ($session, $name) = @_;
	my $end = time() + $patience;
	my $sent = 0;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	while (!$sent && time() < $end)
	{
		my $position = append('account-1');
		my @heard = hear_until($session, sub { grep { $_->[1] == $position } @_ });
		my %worker = map { $_ => 1 } workers('postgres');

		$sent = !grep { !$worker{ $_->[2] } } @heard;
		sleep 0.1;
	}
	ok($sent, "$name: workers send");
	return;
}

sub start_load
{
	my ($seconds, $clients) = @_;

	append_to_file("$folder/load.sql",
		"\\set s random(1, 20)\nSELECT es_append('load:client_id-:s', 'any', 'x');\n")
	  unless -e "$folder/load.sql";
	return IPC::Run::start(
		[ 'pgbench', '-n', '-c', $clients, '-T', $seconds, '--random-seed', int rand 2**31, '-f', "$folder/load.sql", $node->connstr('postgres') ],
		'<', '/dev/null', '>', "$folder/load.out", '2>', "$folder/load.err",
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
}

sub log_lines
{
	my ($pattern) = @_;

	return grep { /$pattern/ } split /\n/, slurp_file($node->logfile);
}

sub has_no_errors
{
	my ($name) = @_;
	my @lines = log_lines(qr/eventstore (?:worker|launcher) .*(?:WARNING|ERROR|FATAL|PANIC):/);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("@lines", '', "$name: no error of a worker in the log");
	return;
}

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

# Everything that is told lies below the horizon, and rises when it does.
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
	is(scalar(grep { $_->[1] >= $held } @heard), 0, "$end: nothing beyond the horizon is told");
	$started = time();
	$slow->query_safe('ROLLBACK TO a') if $end eq 'SAVEPOINT';
	$slow->query_safe($end eq 'SAVEPOINT' ? 'COMMIT' : $end) unless $end eq 'disconnect';
	$slow->quit;
	hears($listener, 'es_events:order', $passed, "$end: what lies above it is told when it rises");
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
	hears($listener, 'es_events:order', $passed, 'an append that fails: what lies above it is told');
	$slow->quit;
	$node->safe_psql('postgres', 'DROP TRIGGER fail ON es_events');
}

# Nobody is held back by a worker that waits.
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
	# A worker that rests does so for as long as it was told before.
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

# COMMIT PREPARED wakes nobody.
{
	my $prepared = $node->safe_psql('postgres',
		q{BEGIN; SELECT position FROM es_append('account-1', 'any', 'x'); PREPARE TRANSACTION 'a'});

	append('order-1');
	sleep 0.5;
	is(scalar(grep { $_->[1] >= $prepared } heard($listener)), 0, 'a prepared transaction is not told');
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
	hears($listener, 'es_events:account', $position, 'notify = off in a session: workers tell it all the same');
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
	ok($alone, 'notify = commit: the appender tells, and nobody else');

	set_conf('eventstore.notify' => 'off');
	$end = time() + $patience;
	@heard = (1);
	while (@heard && time() < $end)
	{
		$position = append('account-1');
		sleep 0.5;
		@heard = heard($listener);
	}
	is(scalar(@heard), 0, 'notify = off: nobody tells');

	set_conf('eventstore.notify' => 'auto');
	hears($listener, 'es_events:account', $position, 'notify = auto: workers tell what they have not yet told');
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
	$node->rotate_logfile;
	$node->start;
	$listener = listen_to('postgres', @channels);
	wait_for_senders($listener, 'after the lock');
}

#
# Ends of workers; a consumer that reads only when it has been told to
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
	$node->poll_query_until('postgres', 'SELECT true');
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
eval { $listener->quit };
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

	$node->safe_psql('postgres', 'DROP DATABASE later WITH (FORCE)');
	cmp_ok(time() - $started, '<', 20, 'DROP DATABASE WITH (FORCE) does not take long');
	sleep 4;
	cmp_ok(scalar(log_lines(qr/starts no workers for database "later"/)), '>', 0, 'the launcher knows that it is gone');
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

$node = new_store(
	'plain',
	conf => q{
max_worker_processes = 2
eventstore.poll_interval = '100ms'
log_line_prefix = '%m [%p] %b %q%a '
});
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
	$position = $session->query_safe(q{SELECT position FROM es_append('account-1', 'any', 'x')});
	@heard = hears($hearer, 'es_events', $position, 'plain: the appender is heard');
	sleep 1;
	push @heard, heard($hearer);
	is(join(',', map { $_->[2] } @heard), $pid, 'plain: and nobody else');
	is_query($node, 'SELECT count(*) FROM es_notified', '0', 'plain: the worker keeps no record');

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
	has_workers('postgres', 0, 'plain: it can be ended');
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
