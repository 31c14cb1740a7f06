# While a call waits until it may lock the log against appends, appends of others go on,
# and readers always do: an import of many streams, a projection that becomes or ceases
# to be sync, its rebuild, dropping it, an index on an attribute.  The wait ends by a
# timeout, a cancel or a deadlock.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use EventStoreWaits;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# What an append takes at most beside a call that waits, in milliseconds.  If it queued, it
# would take as long as the call waits, and end by its lock_timeout.
my $worst = 500;

my $node = new_store('waits', fsync => 'off', conf => <<'END');
deadlock_timeout = 300ms
log_lock_waits = on
autovacuum = off
END
my $read = "SELECT count(*) FROM es_read(0, 100);\n";

# Others append and read; nobody waits.
sub others_go_on
{
	my ($what) = @_;
	my @running = (start_clients($node, $append, 3, 1), start_clients($node, $read, 1, 1));
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

#
# Each call waits for an idle appender.
#

sql($node, q{CREATE TABLE seen (position bigint, stream text);
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
	[ 'of type',  q{SELECT es_index_type('x')} ],
	[ 'drop',     q{SELECT es_drop_projection('p')} ]);

foreach (@calls)
{
	my ($what, $sql) = @$_;

	begin_idle();
	my $call = start_call($node, $sql);
	call_waits_for($node, $idle_pid);
	others_go_on($what);
	call_waits_for($node, $idle_pid);
	$idle->query_safe('COMMIT');
	my ($errors) = end_call($call);
	unlike($errors, qr/ERROR/, "$what: is done when the idle one ends");
	is_query($node, q{SELECT count(*) FROM es_events WHERE position NOT IN (SELECT position FROM seen)}, '0',
		"$what: the projection has every event")
	  if $what =~ /sync|rebuild|resume/;
}
is_query($node, q{SELECT count(*) - count(DISTINCT position) FROM seen}, '0', 'and each once');
is_query($node, q{SELECT count(*) FROM es_events WHERE stream LIKE 'import1-%'}, '1500', 'the import is complete');

# So that it is known that it would be seen: whoever waits in the queue stops appends.
begin_idle();
{
	my $call = start_call($node, 'BEGIN; LOCK TABLE es_events IN SHARE ROW EXCLUSIVE MODE; COMMIT');
	my $said;

	call_waits_for($node, $idle_pid);
	$said = ($node->psql('postgres', "SET lock_timeout = '300ms';\nSELECT es_append('late-1', 'any', 'x')"))[2];
	like($said, qr/canceling statement due to lock timeout/, 'control: behind a plain LOCK TABLE appends wait');
	$idle->query_safe('COMMIT');
	end_call($call);
}

#
# A long reader is waited for by nobody.
#

sql($node, q{TRUNCATE seen; SELECT es_create_projection('p', query => 'INSERT INTO seen SELECT position, stream FROM new_events', mode => 'sync')});
$idle->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$idle->query_safe('SELECT count(*) FROM es_events');
{
	my $call = start_call($node, q{SELECT es_drop_projection('p')});
	my ($errors, $seconds) = end_call($call);

	unlike($errors, qr/ERROR/, 'a projection is dropped behind a long reader');
	others_go_on('dropped behind a reader');
}
is_query($node, q{SELECT string_agg(tgenabled::text, '') FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc},
	'D', 'its trigger stays, disabled');
$idle->query_safe('COMMIT');
sql($node, q{SELECT es_create_projection('other', query => 'INSERT INTO seen SELECT position, stream FROM new_events'); SELECT 1});
sql($node, q{SELECT es_drop_projection('other')});
is_query($node, q{SELECT count(*) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc}, '0', 'until another is dropped');

#
# The rebuild of a sync projection waits for a writer of its table, and holds nothing.
#

sql($node, q{TRUNCATE seen; SELECT es_create_projection('p', query => 'INSERT INTO seen SELECT position, stream FROM new_events',
	mode => 'sync', tables => ARRAY['seen'::regclass])});
begin_idle(q{UPDATE seen SET stream = 'changed' WHERE false});
{
	my $call = start_call($node, q{SELECT es_rebuild_projection('p')});

	call_waits_for($node, $idle_pid);
	others_go_on('rebuild behind a writer of its table');
	sql($node, q{INSERT INTO seen VALUES (0, 'by hand')});
	$idle->query_safe('COMMIT');
	unlike((end_call($call))[0], qr/ERROR/, 'the projection is rebuilt');
	is_query($node, q{SELECT (SELECT count(*) FROM es_events WHERE position > start_position) - (SELECT count(*) FROM seen)
		FROM es_projections}, '0', 'and has every event');
}
sql($node, q{SELECT es_alter_projection('p', mode => 'async')});
begin_idle(q{UPDATE seen SET stream = 'changed' WHERE false});
{
	my $call = start_call($node, q{SELECT es_rebuild_projection('p')});

	call_waits_for($node, $idle_pid);
	sql($node, q{SET lock_timeout = 3000; INSERT INTO seen VALUES (0, 'by hand')});
	call_waits_for($node, $idle_pid);
	$idle->query_safe('COMMIT');
	unlike((end_call($call))[0], qr/ERROR/, 'an async one lets writers of its table go on, too');
}
sql($node, q{SELECT es_drop_projection('p')});

#
# A prepared transaction
#

sql($node, q{BEGIN; SELECT es_append('prepared-1', 'any', 'x'); PREPARE TRANSACTION 'p'});
{
	my $call = start_call($node, import_of(1500));

	call_waits_for($node, 0);
	others_go_on('import behind a prepared transaction');
	sql($node, q{COMMIT PREPARED 'p'});
	unlike((end_call($call))[0], qr/ERROR/, 'an import waits for a prepared transaction');
}

#
# Timeouts and cancels
#

begin_idle();
foreach my $milliseconds (200, 1500)
{
	my ($errors, $seconds) = end_call(start_call($node, "SET lock_timeout = $milliseconds; " . import_of(1500)));

	like($errors, qr/ERROR:  55P03: canceling statement due to lock timeout/, "lock_timeout of $milliseconds ms ends the wait");
	like($errors, qr/DETAIL:  It waited \d+ ms for ShareRowExclusiveLock on table "es_events"\. A conflicting lock is held by process $idle_pid\./,
		'and says who holds the log');
	like($errors, qr/CONTEXT:  while locking table "es_events" to append to more than 1000 streams and tags/, 'and for what');
	cmp_ok($seconds, '>=', $milliseconds / 1000, 'not too early');
	cmp_ok($seconds, '<', $milliseconds / 1000 + 10, 'nor too late');
}
like((end_call(start_call($node, 'SET statement_timeout = 1500; ' . import_of(1500))))[0], qr/ERROR:  57014: canceling statement due to statement timeout/,
	'statement_timeout ends the wait');
foreach my $sql (import_of(1500), q{SELECT es_index_attribute('x', 'other')})
{
	my $call = start_call($node, $sql);

	call_waits_for($node, $idle_pid);
	sql($node, q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'call'});
	like((end_call($call))[0], qr/ERROR:  57014: canceling statement due to user request/, 'a cancel ends the wait');
}
is_query($node, q{SELECT count(*) FROM pg_locks WHERE relation = 'es_events'::regclass AND pid NOT IN (pg_backend_pid(), } . "$idle_pid)", '0',
	'no lock is left');

# In a subtransaction whose error is caught, and then again in the same transaction
{
	my $sql = import_of(1500);
	my $call = start_call($node, qq{DO \$\$ BEGIN
		SET LOCAL lock_timeout = '500ms';
		BEGIN $sql; EXCEPTION WHEN lock_not_available THEN RAISE NOTICE 'caught'; END;
		SET LOCAL lock_timeout = 0;
		$sql; END \$\$});

	wait_until('it is caught', sub { slurp_file("$call->{file}.err") =~ /caught/ });
	call_waits_for($node, $idle_pid);
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
	my $call = start_call($node, q{BEGIN; SELECT es_append('account-1', 'any', 'x'); } . import_of(1500) . '; COMMIT');

	call_waits_for($node, $idle_pid);
	my $began = time();
	my ($status, $out, $err) = $node->psql('postgres',
		q{BEGIN; SELECT es_append('other-1', 'any', 'x'); SELECT version FROM es_append('account-1', 'any', 'x'); COMMIT}, timeout => 60);
	my ($errors) = end_call($call);
	like("$errors$err", qr/ERROR: .*deadlock detected/, 'a deadlock is found');
	cmp_ok(time() - $began, '<', 20, 'soon');
	diag(sprintf 'deadlock: found after %.1f s', time() - $began);
	like("$errors$err", qr/while locking (?:table "es_events" to append to more than 1000 streams and tags|stream "account-1")/, 'its error has names');
}
$idle->query_safe('COMMIT');

# An appender that waits for a stream is named in the log.
$idle->query_safe('BEGIN');
$idle->query_safe(q{SELECT es_append('account-2', 'any', 'x')});
{
	my $call = start_call($node, q{SELECT es_append('account-2', 'any', 'x')});

	call_waits_for($node, $idle_pid);
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

# es_work says that it waits for a session that restores.
$idle->query_safe('SET row_security = off');
$idle->query_safe(q{INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data)
	VALUES (nextval('es_position'), 1, '3', now(), gen_random_uuid(), 'restored-1', 'x', '{}')});
{
	my $call = start_call($node, 'CALL es_work()');

	wait_until('es_work says so', sub { slurp_file("$call->{file}.err") =~ /NOTICE:  00000: waiting for a session that restores the store/ });
	is_query($node, q{SELECT wait_event_type FROM pg_stat_activity WHERE application_name = 'call'}, 'Lock', 'es_work waits for a session that restores');
	$idle->quit;
	unlike((end_call($call))[0], qr/ERROR/, 'until it ends');
}

holds_versions_dense($node, 'at the end');
holds_horizon_at_end($node, 'at the end');
$node->stop;
done_testing();
