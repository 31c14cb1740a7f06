# Workers that an append starts, without shared_preload_libraries, and that leave.
#
# What has to last for seconds happens in several databases side by side.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
my $folder   = PostgreSQL::Test::Utils::tempdir();
my $node     = new_store('auto', fsync => 'off', conf => q{
eventstore.autostart_workers = 12
max_worker_processes = 32
wal_level = logical
max_wal_senders = 3
max_replication_slots = 3
restart_after_crash = on
log_line_prefix = '%m [%p] %b %d '
log_min_messages = debug1
});

use_seed();

# Started by nobody, as the template must not have a worker.
$node->safe_psql('postgres', q{
	CREATE ROLE writer LOGIN;
	SELECT es_grant('writer', 'writer');
	CREATE DATABASE pattern});
$node->safe_psql('pattern', q{
	SET eventstore.autostart_workers = 0;
	CREATE EXTENSION eventstore;
	CREATE TABLE handled (position bigint);
	SELECT es_create_projection('p', query => 'INSERT INTO handled SELECT position FROM new_events');
	SELECT es_grant('writer', 'writer')});

sub query { return $node->safe_psql(@_) }

sub new_databases
{
	query('postgres', "CREATE DATABASE $_ TEMPLATE pattern") foreach @_;
	return;
}

my $append = q{SELECT position FROM es_append('a-1', 'any', 'x')};

sub count_workers
{
	my ($database) = @_;

	return query('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = '$database'");
}

sub becomes
{
	my ($database, $sql, $expected, $name) = @_;
	my $value;

	foreach (1 .. $patience)
	{
		$value = query($database, $sql);
		last if $value eq $expected;
		sleep 0.1;
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($value, $expected, $name);
	return;
}

sub becomes_served
{
	my ($database, $count, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	becomes('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND datname = '$database'",
		$count, $name);
	return;
}

sub is_handled
{
	my ($database, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	becomes($database, 'SELECT (SELECT count(*) FROM handled) = (SELECT count(*) FROM es_events)', 't', $name);
	return;
}

# How often a worker was registered for the server since an offset of its log.
sub registered
{
	my ($offset) = @_;

	return scalar(grep { /registering background worker "eventstore worker"/ } split /\n/, slurp_file($node->logfile, $offset));
}

#
# A bare CREATE EXTENSION
#

query('postgres', q{CREATE TABLE handled (position bigint)});
is(count_workers('postgres'), '0', 'CREATE EXTENSION starts nothing');
query('postgres', q{SELECT es_create_projection('p', query => 'INSERT INTO handled SELECT position FROM new_events')});
becomes_served('postgres', 1, 'an async projection starts a worker');
{
	my $listener = $node->background_psql('postgres');
	my ($worker) = query('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker'});
	my $heard = '';

	$listener->query_safe('LISTEN es_events');
	foreach (1 .. $patience)
	{
		$node->safe_psql('postgres', $append, extra_params => [ '-U', 'writer' ]);
		sleep 0.1;
		$heard .= $listener->query_safe('SELECT 1');
		last if $heard =~ /PID $worker\b/;
	}
	like($heard, qr/from server process with PID $worker\b/, 'appends leave their notifications to it');
	is_handled('postgres', 'and it runs the projection');
	is(count_workers('postgres'), '1', 'there is one');
	$listener->quit;
}

#
# Many appenders at once start one
#

new_databases('many');
{
	my $offset = -s $node->logfile;
	my $file = "$folder/append.sql";

	my $from = time;
	append_to_file($file, "SELECT es_append('m-:client_id', 'any', 'x');\n");
	# sessions that stay: one that ends takes its token along
	$node->command_ok([ 'pgbench', '-n', '-c', 20, '-j', 2, '-T', 2, '-R', 200, '-U', 'writer', '-f', $file, $node->connstr('many') ],
		'many appenders at once');
	is_handled('many', 'many appenders: the projection has run');
	# a token is of a second of the clock: a server that is slow to start the worker may be asked again in the next one
	cmp_ok(registered($offset), '<=', int(time) - int($from) + 1, 'many appenders: they start one worker, at most one a second');
	is(count_workers('many'), '1', 'many appenders: there is one');
}

#
# What a worker stays for, and what it leaves for
#

my %reasons = (
	idle     => q{SELECT 1},
	behind   => q{SELECT es_create_projection('q', category => 'a', query => 'INSERT INTO handled SELECT 1 / (position - position) FROM new_events')},
	interval => q{CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM es_events;
	              SELECT es_create_projection('q', refresh => 'v', min_interval => '1 hour')},
	parked   => q{SELECT es_create_projection('q', on_failure => 'park', query => 'INSERT INTO handled SELECT 1 / (position - position) FROM new_events')},
	prepared => q{SELECT 1},
	open     => q{SELECT 1},
	slow     => q{CREATE FUNCTION sleep(es_recorded_event) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(6), pg_advisory_unlock_all()';
	              SELECT es_create_projection('q', 'sleep', batch_size => 1)},
	paused   => q{SELECT es_create_projection('q', query => 'INSERT INTO handled SELECT 1 / (position - position) FROM new_events'); SELECT es_pause_projection('q')},
);
my @racers = map { "racer$_" } 1 .. 4;
my @races;

new_databases(sort(keys %reasons), @racers);
my $open = $node->background_psql('open');
$open->query_safe(q{BEGIN; SELECT es_append('b-1', 'any', 'x')});
query('prepared', q{BEGIN; SELECT es_append('b-1', 'any', 'x'); PREPARE TRANSACTION 'p'});
query($_, "$reasons{$_}; $append; $append") foreach sort keys %reasons;
becomes('interval', q{SELECT refreshed_at IS NOT NULL FROM es_projections WHERE name = 'q'}, 't', 'interval: a view is refreshed');
query('interval', $append);

# Appends at the moments at which workers leave: each event is handled.
foreach my $racer (@racers)
{
	my $file = "$folder/$racer";

	append_to_file("$file.sql", join '', map { sprintf "SELECT pg_sleep(%.3f);\n%s;\n", 1.95 + rand 0.3, $append } 1 .. 2);
	push @races, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($racer), '-f', "$file.sql" ], '<', '/dev/null', '>', "$file.out", '2>&1');
}
becomes_served('idle', 0, 'idle: it leaves');
becomes_served('paused', 0, 'paused: it leaves');
is(count_workers($_), '1', "$_: it stays") foreach grep { !/idle|paused/ } sort keys %reasons;
is_handled('idle', 'idle: all is handled');
is(query('idle', 'SELECT position = (SELECT max(position) FROM es_events) FROM es_notified'), 't', 'idle: all is notified');
query('idle', $append);
becomes_served('idle', 1, 'idle: the next append starts one');
is_handled('idle', 'idle: and that one handles it');

# A worker that is in one transaction for long promises nothing.
{
	my $listener = $node->background_psql('slow');
	my $heard;

	$listener->query_safe('LISTEN es_events');
	$heard = $listener->query_safe(q{SELECT 'own', pg_backend_pid() UNION ALL SELECT 'at', position FROM es_append('b-1', 'any', 'x')});
	$heard .= $listener->query_safe('SELECT 1');
	my ($pid) = $heard =~ /own\|(\d+)/;
	like($heard, qr/received from server process with PID $pid\b/, 'slow: the appender notifies by itself');
	is(count_workers('slow'), '1', 'slow: and starts no other worker');
	$listener->quit;
}

# DROP DATABASE and CREATE DATABASE wait for five seconds.
{
	my $copy = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', 'CREATE DATABASE copy TEMPLATE idle' ], '<', '/dev/null');

	query('paused', $append);
	is(count_workers('paused'), '1', 'DROP DATABASE: there is a worker');
	query('postgres', 'DROP DATABASE paused');
	pass('DROP DATABASE needs no FORCE');
	ok($copy->finish, 'a database is copied although it had a worker');
	is_handled('copy', 'the copy has all');
	query('copy', $append);
	is_handled('copy', 'and a worker of its own');
}
$open->query_safe('COMMIT');
$open->quit;
query('prepared', q{COMMIT PREPARED 'p'});
query('interval', q{SELECT es_drop_projection('q')});
is_handled('open', 'open: it handles what is committed');
is_handled('prepared', 'prepared: it handles what is committed');
# Beside a worker that was started by hand
{
	new_databases('hand');
	query('hand', 'SELECT es_start_worker()');
	becomes('hand', 'SELECT count(*) FROM pg_locks WHERE objsubid = 6 AND classid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())',
		'1', 'by hand: it serves the database');
	query('hand', $append) foreach 1 .. 3;
	is_handled('hand', 'by hand: it handles all');
	is(count_workers('hand'), '1', 'by hand: no other is started');
}
foreach my $i (0 .. $#racers)
{
	$races[$i]->finish;
	is_handled($racers[$i], "$racers[$i]: no event is left out");
}
becomes_served($_, 0, "$_: then it leaves") foreach qw(interval open prepared);

#
# None is started
#

{
	my $offset = -s $node->logfile;

	like(($node->psql('open', 'SELECT es_uuid7(); SET eventstore.autostart_workers = 5', extra_params => [ '-U', 'writer' ]))[2],
		qr/permission denied/, 'the setting is a superuser\'s');
	query('open', "SET eventstore.autostart_workers = 0; $append");
	query('open', "SET eventstore.autostart_workers = 32; $append; $append");
	query('open', "BEGIN; $append; ROLLBACK");
	sleep 0.3;
	is(registered($offset), 0, 'none is started where none may be, where no process would be left, and by a rollback');
	isnt(query('open', 'SELECT count(*) FROM handled'), query('open', 'SELECT count(*) FROM es_events'), 'so that nothing is handled');
	query('open', q{SELECT es_wait('p', max(position)) FROM es_events});
	is_handled('open', 'es_wait starts one');
}

# Places of the cluster: those of behind, parked and others that stay are enough.
{
	$node->append_conf('postgresql.conf', 'eventstore.autostart_workers = 2');
	$node->reload;
	becomes('postgres', 'SHOW eventstore.autostart_workers', '2', 'the setting is changed');
	new_databases('third');
	query('third', $append) foreach 1 .. 2;
	sleep 0.3;
	is(count_workers('third'), '0', 'all places are taken: no worker is started');
	$node->append_conf('postgresql.conf', 'eventstore.autostart_workers = 12');
	$node->reload;
	becomes('third', 'SHOW eventstore.autostart_workers', '12', 'the setting is changed again');
	query('third', $append);
	is_handled('third', 'with a place it is');
}

#
# Not the library's version
#

{
	my $offset = -s $node->logfile;

	new_databases('other');
	query('other', q{UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'eventstore'});
	query('other', $append);
	ok($node->wait_for_log(qr/no eventstore worker serves database "other"/, $offset), 'another version: the log says so');
	becomes_served('other', 0, 'another version: the worker does not stay');
	is(query('other', 'SELECT count(*) FROM handled'), '0', 'another version: it does nothing');
}

#
# Rows that logical replication applies
#

new_databases('publisher', 'subscriber');
query('publisher', q{CREATE PUBLICATION p FOR TABLE es_events, es_published_horizon; SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
query('subscriber', sprintf q{CREATE SUBSCRIPTION s CONNECTION '%s' PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false)},
	$node->connstr('publisher') =~ s/'/''/gr);
query('publisher', $append);
becomes('subscriber', 'SELECT count(*) FROM handled', '1', 'an applied row starts a worker');
query('subscriber', q{ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s});

#
# A crash
#

{
	my $offset = -s $node->logfile;

	query('many', $append);
	is_handled('many', 'before a crash: a worker');
	kill('KILL', query('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'eventstore worker' LIMIT 1}));
	ok($node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset), 'it is killed');
	await_server($node, 'postgres');
	query('many', $append);
	is_handled('many', 'after the crash: the next append starts one');
}

unlike(slurp_file($node->logfile), qr/PANIC|you don't own a lock/, 'locks are released by their owners');
$node->stop;
done_testing();
