# While a call waits until it may lock the log against appends, appends of others go on,
# and readers always do: an import of many streams, a projection that becomes or ceases
# to be sync, its rebuild, dropping it, an index on an attribute.  The wait ends by a
# timeout, a cancel or a deadlock, and in time beside many appenders.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use IPC::Run;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# What an append takes at most beside a call that waits, in milliseconds.  If it queued, it
# would take as long as the call waits, and end by its lock_timeout.
my $worst = 500;
my $limit = 3000;

my $node = new_store('waits', fsync => 'off', conf => <<'END');
deadlock_timeout = 300ms
log_lock_waits = on
autovacuum = off
END
my $folder = PostgreSQL::Test::Utils::tempdir();
my $files = 0;

sub value
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub new_file
{
	my ($text) = @_;
	my $file = "$folder/" . ++$files;

	append_to_file($file, $text);
	return $file;
}

# A call in a session of its own, which is named so in pg_stat_activity.
sub start_call
{
	my ($sql) = @_;
	my $file = new_file("SET application_name = 'call';\n\\set VERBOSITY verbose\n$sql;\n");

	return { file => $file, began => time(), run => start_psql($node, $file, $file) };
}

# How it ends: its errors, and seconds.
sub end_call
{
	my ($call) = @_;

	finish_psql($call->{run});
	return (slurp_file("$call->{file}.err"), time() - $call->{began});
}

sub call_waits_for
{
	my ($pid) = @_;

	wait_until('the call waits', sub {
		value("SELECT count(*) FROM pg_stat_activity
			WHERE application_name = 'call' AND $pid = ANY (pg_blocking_pids(pid))") ne '0'
	});
	return;
}

# Runs a script of pgbench in so many clients for some seconds; returns what its
# transactions took, in milliseconds, in ascending order.
sub start_clients
{
	my ($script, $clients, $seconds) = @_;
	my $file = new_file($script);

	local $ENV{PGOPTIONS} = "-c lock_timeout=$limit";
	my $run = IPC::Run::start(
		[
			'pgbench', '-n', '-c', $clients, '-j', 1, '-T', $seconds, '-f', $file, '-l',
			"--log-prefix=$file.log", $node->connstr('postgres')
		],
		'<', '/dev/null', '>', "$file.out", '2>', "$file.err",
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return { file => $file, run => $run };
}

sub end_clients
{
	my ($clients) = @_;
	my @times;

	ok(finish_psql($clients->{run}), 'no client has failed') or diag(slurp_file("$clients->{file}.err"));
	foreach my $log (glob "$clients->{file}.log*")
	{
		push @times, map { (split / /)[2] / 1000 } split /\n/, slurp_file($log);
	}
	return sort { $a <=> $b } @times;
}

my $append = "SELECT es_append('client-' || :client_id, 'any', 'x');\n";
my $read = "SELECT count(*) FROM es_read(0, 100);\n";

# Others append and read; nobody waits.
sub others_go_on
{
	my ($what) = @_;
	my @running = (start_clients($append, 3, 1), start_clients($read, 1, 1));
	my @appends = end_clients($running[0]);
	my @reads = end_clients($running[1]);

	diag(sprintf '%s: %d appends, the longest %.0f ms; %d reads, the longest %.0f ms', $what,
		scalar @appends, $appends[-1], scalar @reads, $reads[-1]);
	cmp_ok($appends[-1], '<', $worst, "$what: appends go on");
	cmp_ok($reads[-1], '<', $worst, "$what: reads go on");
	return;
}

my $idle = $node->background_psql('postgres');
my $idle_pid = $idle->query_safe('SELECT pg_backend_pid()');

sub begin_idle
{
	my ($sql) = @_;

	$idle->query_safe('BEGIN');
	$idle->query_safe($sql // q{SELECT es_append('idle-1', 'any', 'x')});
	return;
}

my $imports = 0;

sub import_of
{
	my ($streams) = @_;

	$imports++;
	return "INSERT INTO es_import (stream, type) SELECT 'import$imports-' || i, 'x' FROM generate_series(1, $streams) i";
}

#
# Each call waits for an idle appender.
#

value(q{CREATE TABLE seen (position bigint, stream text);
	SELECT es_create_projection('p', query => 'INSERT INTO seen SELECT position, stream FROM new_events',
		tables => ARRAY['seen'::regclass]);
	SELECT es_append('first-1', 'any', 'x')});

my @calls = (
	[ 'import',   import_of(1500) ],
	[ 'to sync',  q{SELECT es_alter_projection('p', mode => 'sync')} ],
	[ 'rebuild',  q{SELECT es_rebuild_projection('p')} ],
	[ 'pause',    q{SELECT es_pause_projection('p')} ],
	[ 'resume',   q{SELECT es_resume_projection('p')} ],
	[ 'index',    q{SELECT es_index_attribute('x', 'who')} ],
	[ 'drop',     q{SELECT es_drop_projection('p')} ]);

foreach (@calls)
{
	my ($what, $sql) = @$_;

	begin_idle();
	my $call = start_call($sql);
	call_waits_for($idle_pid);
	others_go_on($what);
	call_waits_for($idle_pid);
	$idle->query_safe('COMMIT');
	my ($errors) = end_call($call);
	unlike($errors, qr/ERROR/, "$what: is done when the idle one ends");
	is_query($node, q{SELECT count(*) FROM es_events WHERE position NOT IN (SELECT position FROM seen)}, '0',
		"$what: the projection has every event")
	  if $what =~ /sync|rebuild|resume/;
}
is_query($node, q{SELECT count(*) - count(DISTINCT position) FROM seen}, '0', 'and each once');
is_query($node, q{SELECT count(*) FROM es_events WHERE stream LIKE 'import1-%'}, '1500', 'the import is complete');

#
# A long reader is waited for by nobody.
#

value(q{TRUNCATE seen; SELECT es_create_projection('p', query => 'INSERT INTO seen SELECT position, stream FROM new_events', mode => 'sync')});
$idle->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$idle->query_safe('SELECT count(*) FROM es_events');
{
	my $call = start_call(q{SELECT es_drop_projection('p')});
	my ($errors, $seconds) = end_call($call);

	unlike($errors, qr/ERROR/, 'a projection is dropped behind a long reader');
	others_go_on('dropped behind a reader');
}
is_query($node, q{SELECT string_agg(tgenabled::text, '') FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc},
	'D', 'its trigger stays, disabled');
$idle->query_safe('COMMIT');
value(q{SELECT es_create_projection('other', query => 'INSERT INTO seen SELECT position, stream FROM new_events'); SELECT 1});
value(q{SELECT es_drop_projection('other')});
is_query($node, q{SELECT count(*) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc}, '0', 'until another is dropped');

#
# The rebuild of a sync projection waits for a writer of its table, and holds nothing.
#

value(q{TRUNCATE seen; SELECT es_create_projection('p', query => 'INSERT INTO seen SELECT position, stream FROM new_events',
	mode => 'sync', tables => ARRAY['seen'::regclass])});
begin_idle(q{UPDATE seen SET stream = 'changed' WHERE false});
{
	my $call = start_call(q{SELECT es_rebuild_projection('p')});

	call_waits_for($idle_pid);
	others_go_on('rebuild behind a writer of its table');
	value(q{INSERT INTO seen VALUES (0, 'by hand')});
	$idle->query_safe('COMMIT');
	unlike((end_call($call))[0], qr/ERROR/, 'the projection is rebuilt');
	is_query($node, q{SELECT (SELECT count(*) FROM es_events WHERE position > start_position) - (SELECT count(*) FROM seen)
		FROM es_projections}, '0', 'and has every event');
}
value(q{SELECT es_alter_projection('p', mode => 'async')});
begin_idle(q{UPDATE seen SET stream = 'changed' WHERE false});
{
	my $call = start_call(q{SELECT es_rebuild_projection('p')});

	call_waits_for($idle_pid);
	value(q{SET lock_timeout = 3000; INSERT INTO seen VALUES (0, 'by hand')});
	call_waits_for($idle_pid);
	$idle->query_safe('COMMIT');
	unlike((end_call($call))[0], qr/ERROR/, 'an async one lets writers of its table go on, too');
}
value(q{SELECT es_drop_projection('p')});

#
# A prepared transaction
#

value(q{BEGIN; SELECT es_append('prepared-1', 'any', 'x'); PREPARE TRANSACTION 'p'});
{
	my $call = start_call(import_of(1500));

	call_waits_for(0);
	others_go_on('import behind a prepared transaction');
	value(q{COMMIT PREPARED 'p'});
	unlike((end_call($call))[0], qr/ERROR/, 'an import waits for a prepared transaction');
}

#
# Timeouts and cancels
#

begin_idle();
foreach my $milliseconds (200, 1500)
{
	my ($errors, $seconds) = end_call(start_call("SET lock_timeout = $milliseconds; " . import_of(1500)));

	like($errors, qr/ERROR:  55P03: canceling statement due to lock timeout/, "lock_timeout of $milliseconds ms ends the wait");
	like($errors, qr/DETAIL:  It waited \d+ ms for ShareRowExclusiveLock on table "es_events"\. A conflicting lock is held by process $idle_pid\./,
		'and says who holds the log');
	like($errors, qr/CONTEXT:  while locking table "es_events" to append to more than 1000 streams/, 'and for what');
	cmp_ok($seconds, '>=', $milliseconds / 1000, 'not too early');
	cmp_ok($seconds, '<', $milliseconds / 1000 + 10, 'nor too late');
}
like((end_call(start_call('SET statement_timeout = 1500; ' . import_of(1500))))[0], qr/ERROR:  57014: canceling statement due to statement timeout/,
	'statement_timeout ends the wait');
foreach my $sql (import_of(1500), q{SELECT es_index_attribute('x', 'other')})
{
	my $call = start_call($sql);

	call_waits_for($idle_pid);
	value(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'call'});
	like((end_call($call))[0], qr/ERROR:  57014: canceling statement due to user request/, 'a cancel ends the wait');
}
is_query($node, q{SELECT count(*) FROM pg_locks WHERE relation = 'es_events'::regclass AND pid NOT IN (pg_backend_pid(), } . "$idle_pid)", '0',
	'no lock is left');

# In a subtransaction whose error is caught, and then again in the same transaction
{
	my $sql = import_of(1500);
	my $call = start_call(qq{DO \$\$ BEGIN
		SET LOCAL lock_timeout = '500ms';
		BEGIN $sql; EXCEPTION WHEN lock_not_available THEN RAISE NOTICE 'caught'; END;
		SET LOCAL lock_timeout = 0;
		$sql; END \$\$});

	wait_until('it is caught', sub { slurp_file("$call->{file}.err") =~ /caught/ });
	call_waits_for($idle_pid);
	$idle->query_safe('COMMIT');
	unlike((end_call($call))[0], qr/ERROR/, 'a wait that was caught leaves the transaction as it was');
}

#
# What the log says
#

my $log = slurp_file($node->logfile);
like($log, qr/LOG:  process \d+ still waiting for ShareRowExclusiveLock on table "es_events" after \d+ ms\n.*DETAIL:  A conflicting lock is held by process $idle_pid\.\n.*CONTEXT:  while locking table "es_events" to make sync projection "p"/,
	'log_lock_waits has a line on the wait');
like($log, qr/LOG:  process \d+ acquired ShareRowExclusiveLock on table "es_events" after \d+ ms/, 'and one on its end');

#
# A deadlock with a transaction that it does not wait for at the moment: the server's
# search does not find it from the other side.
#

begin_idle();
{
	my $call = start_call(q{BEGIN; SELECT es_append('account-1', 'any', 'x'); } . import_of(1500) . '; COMMIT');

	call_waits_for($idle_pid);
	my $began = time();
	my ($status, $out, $err) = $node->psql('postgres',
		q{BEGIN; SELECT es_append('other-1', 'any', 'x'); SELECT version FROM es_append('account-1', 'any', 'x'); COMMIT}, timeout => 60);
	my ($errors) = end_call($call);
	like("$errors$err", qr/ERROR: .*deadlock detected/, 'a deadlock is found');
	cmp_ok(time() - $began, '<', 20, 'soon');
	diag(sprintf 'deadlock: found after %.1f s', time() - $began);
	like("$errors$err", qr/while locking (?:table "es_events" to append to more than 1000 streams|stream "account-1")/, 'its error has names');
}
$idle->query_safe('COMMIT');

# An appender that waits for a stream is named in the log.
$idle->query_safe('BEGIN');
$idle->query_safe(q{SELECT es_append('account-2', 'any', 'x')});
{
	my $call = start_call(q{SELECT es_append('account-2', 'any', 'x')});

	call_waits_for($idle_pid);
	wait_until('the log has a line', sub {
		slurp_file($node->logfile) =~ /still waiting for ExclusiveLock on advisory lock .*\n(?:.*\n){1,2}?.*CONTEXT:  while locking stream "account-2"/ });
	pass('a long wait for a stream is in the log, with its name');
	is_query($node, q{
		SELECT string_agg(l.granted || ' ' || a.application_name, ', ' ORDER BY l.granted)
		  FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
		 WHERE l.locktype = 'advisory' AND l.objsubid = 3
		   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
		   AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('account-2', 0)},
		'false call, true ' . $idle->query_safe('SHOW application_name'), 'who has a stream, and who waits for it');
	$idle->query_safe('COMMIT');
	end_call($call);
}

#
# Beside busy appenders
#

my @busy = (
	[ 'quick appends', 3, $append ],
	[ 'appends that stay open for 20 ms', 3, "BEGIN;\n$append\\sleep 20 ms\nCOMMIT;\n" ],
	[ 'appends that stay open for 300 ms', 7, "BEGIN;\n$append\\sleep 300 ms\nCOMMIT;\n" ]);

foreach (@busy)
{
	my ($what, $time, $script) = @$_;
	my $clients = start_clients($script, 8, $time);
	my @seconds;

	sleep 0.3;
	foreach (1 .. 2)
	{
		my ($errors, $seconds) = end_call(start_call(import_of(1500)));

		unlike($errors, qr/ERROR/, "$what: an import");
		push @seconds, $seconds;
	}
	ok($clients->{run}->pumpable, "$what: they are there all the time");
	my @times = end_clients($clients);
	diag(sprintf '%s: %d by 8 clients, median %.0f ms, longest %.0f ms; imports of %s s', $what,
		scalar @times, median(@times), $times[-1], join ', ', map { sprintf '%.2f', $_ } @seconds);
	cmp_ok($times[-1], '<', $limit, "$what: none waits for long");
}
holds_versions_dense($node, 'at the end');
holds_horizon_at_end($node, 'at the end');

#
# An autovacuum of the log goes, as it does for a request in the queue.
#

value(q{ALTER TABLE es_events SET (autovacuum_vacuum_insert_threshold = 1, autovacuum_vacuum_insert_scale_factor = 0,
	autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
	ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET autovacuum_naptime = 1; SELECT pg_reload_conf()});
value(import_of(900));
wait_until('an autovacuum', sub { value(q{SELECT count(*) FROM pg_stat_progress_vacuum}) ne '0' });
unlike((end_call(start_call(import_of(1500))))[0], qr/ERROR/, 'an import beside an autovacuum');
like(slurp_file($node->logfile), qr/canceling autovacuum task\n.*CONTEXT:.*\n?.*automatic vacuum of table "postgres\.public\.es_events"/, 'has ended it');
$idle->quit;
$node->stop;
done_testing();
