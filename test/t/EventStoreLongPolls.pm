# What must hold of long polls on any server: what one holds while it sleeps, that it
# wakes up soon, that it ends when it is asked to, and that many of them do no harm.
package EventStoreLongPolls;

use strict;
use warnings;

use Exporter qw(import);
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use EventStoreSubscriptions;
use EventStoreTest;

our @EXPORT = qw(
  begin finish has_worker snapshot_keeps_rows holds_nothing_asleep holds_nothing_after_looking
  works_everywhere wakes_up wakes_up_after_all wakes_up_in_time gives_up
  is_ended stands_in_nobodys_way ends_with_all many_at_once last_is_woken all_are_woken);

my $node;

sub query { return $node->safe_psql('postgres', $_[0]) }

# Events of category a are what the subscription polls wants; those of b are not.
sub append
{
	my ($stream) = @_;

	return query("SELECT position FROM es_append('$stream', 'any', 'x')");
}

sub new_subscription
{
	my ($arguments) = @_;

	query(q{SELECT es_drop_subscription(name) FROM es_subscriptions});
	query("SELECT es_create_subscription('polls', 'a', start_position => (SELECT coalesce(max(position), 0) FROM es_events)"
		  . (defined $arguments ? ", $arguments" : '') . ')');
	return;
}

my $poll = q{SELECT stream FROM es_poll('polls', wait => '60s')};

#
# What it holds while it sleeps
#

my @ways = (
	[ 'by the simple protocol', "$poll;" ],
	[ 'within BEGIN', "BEGIN;\n$poll;\nCOMMIT;" ],
	[ 'within BEGIN, after another statement', "BEGIN;\nSELECT 1 \\g /dev/null\n$poll;\nCOMMIT;" ],
	[ 'after a savepoint', "BEGIN;\nSAVEPOINT a;\n$poll;\nRELEASE a;\nCOMMIT;" ],
	[ 'with expressions', q{SELECT upper(stream) FROM es_poll('polls', 'a' || 'nn', 3 + 4, interval '30s' * 2) WHERE position > 0 ORDER BY 1 LIMIT 3;} ],
	map { [ "pgbench -M $_", "$poll;", [ '-t', 1, '-M', $_ ] ] } qw(simple extended prepared));

# Within a second there is a moment at which it holds nothing.
sub holds_nothing
{
	my ($session, $name) = @_;
	my $end = time() + 1;
	my $state;

	session_sleeps($session);
	do { sleep 0.02; $state = session_state($session) } while ($state ne 'Extension' && time() < $end);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($state, 'Extension', "$name: asleep it has no snapshot, no transaction id, and no lock");
	return;
}

# How many deleted rows VACUUM could not remove.
sub kept_by_vacuum
{
	my (undef, undef, $said) = $node->psql('postgres', 'VACUUM (VERBOSE, INDEX_CLEANUP off) junk');

	return $said =~ /(\d+) are dead but not yet removable/ ? $1 : "not known: $said";
}

# Rows that are deleted meanwhile can be removed.
sub lets_vacuum
{
	my ($name) = @_;
	my $end = time() + 2;
	my $kept;

	query('TRUNCATE junk; INSERT INTO junk SELECT generate_series(1, 500); DELETE FROM junk');
	do { $kept = kept_by_vacuum() } while ($kept ne '0' && time() < $end);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($kept, '0', "$name: VACUUM removes what was deleted meanwhile");
	return;
}

sub holds_nothing_asleep
{
	my ($server) = @_;

	foreach my $way (@ways)
	{
		my ($name, $script, $pgbench) = @$way;
		my $session;

		new_subscription();
		$session = start_session($node, $script, pgbench => $pgbench);
		holds_nothing($session, "$server, $name");
		lets_vacuum("$server, $name");
		append('a-1');
		like(finish_session($session), $pgbench ? qr/processed: 1\/1/ : qr/^a-1$/i, "$server, $name: it delivers");
	}
	return;
}

# So that it is known that this would be seen.
sub snapshot_keeps_rows
{
	my $session;

	query('TRUNCATE junk; INSERT INTO junk SELECT generate_series(1, 500)');
	$session = start_session($node, q{SELECT pg_sleep(60) FROM (SELECT 1 AS n) AS one;});
	wait_until('it sleeps', sub { query(qq{SELECT count(*) FROM pg_stat_activity
		WHERE application_name = '$session->{name}' AND wait_event = 'PgSleep'}) });
	query('DELETE FROM junk');
	is(kept_by_vacuum(), '500', 'VACUUM keeps what was deleted while another statement sleeps');
	query(qq{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = '$session->{name}'});
	finish_session($session);
	return;
}

# What it must not keep, because of events that are not for it, and of consumers
# with events in flight.
sub holds_nothing_after_looking
{
	my ($server) = @_;
	my $session;

	new_subscription();
	append('b-1');
	$session = start_session($node, "$poll;");
	holds_nothing($session, "$server, after others' events");
	append('b-1') foreach 1 .. 3;
	sleep 0.2;
	holds_nothing($session, "$server, among others' events");
	lets_vacuum("$server, after others' events");
	append('a-1');
	is(finish_session($session), 'a-1', "$server, after others' events: it delivers");

	# it is in flight; after that a stream is parked
	$session = start_session($node, "$poll;");
	holds_nothing($session, "$server, what another has in flight");
	append('a-2');
	holds_nothing($session, "$server, what another has in flight, with more");
	lets_vacuum("$server, what another has in flight");
	query(q{SELECT es_nack('polls', token, uptos[1], 'no', 'park') FROM es_partitions});
	is(finish_session($session), 'a-2', "$server, what another has in flight: what is left is delivered");
	return;
}

# In these it may hold the snapshot; but it must see what is new.
sub works_everywhere
{
	my ($server) = @_;

	foreach my $case (
		[ 'in plpgsql', q{DO $$ DECLARE s text; BEGIN SELECT stream INTO s FROM es_poll('polls', wait => '60s');
			RAISE NOTICE '%', s; END $$;} ],
		[ 'in a function of SQL', q{CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql AS
			$$SELECT stream FROM es_poll('polls', wait => '60s')$$; SELECT pg_temp.f();} ],
		[ 'in a function that returns a set', q{CREATE FUNCTION pg_temp.f() RETURNS SETOF text LANGUAGE sql AS
			$$SELECT stream FROM es_poll('polls', wait => '60s')$$; SELECT * FROM pg_temp.f();} ],
		[ 'a cursor', "BEGIN; DECLARE c CURSOR FOR $poll; FETCH ALL FROM c; FETCH ALL FROM c; CLOSE c; COMMIT;" ],
		[ 'a cursor WITH HOLD', "BEGIN; DECLARE c CURSOR WITH HOLD FOR $poll; COMMIT; FETCH ALL FROM c;" ],
		[ 'psql with FETCH_COUNT', "\\set FETCH_COUNT 1\n$poll;" ],
		[ 'EXPLAIN ANALYZE', q{EXPLAIN (ANALYZE, VERBOSE, COSTS off) SELECT 'a-1', stream FROM es_poll('polls', wait => '60s');} ],
		[ 'EXECUTE', "PREPARE p AS $poll; EXECUTE p;" ],
		[ 'COPY', "COPY ($poll) TO STDOUT;" ],
		[ 'CREATE TABLE AS', "CREATE TEMPORARY TABLE t AS $poll; TABLE t;" ],
		[ 'INSERT SELECT', "CREATE TEMPORARY TABLE t (s text); INSERT INTO t $poll; TABLE t;" ],
		[ 'with a table', q{SELECT p.stream FROM es_poll('polls', wait => '60s') AS p LEFT JOIN es_events AS e USING (position);} ],
		[ 'with a subquery', q{SELECT stream, (SELECT count(*) FROM es_events) > 0 FROM es_poll('polls', wait => '60s');} ],
		[ 'LATERAL', q{SELECT p.stream FROM generate_series(1, 2) AS i, LATERAL es_poll('polls', 'ann', i, wait => '60s') AS p;} ],
		[ 'in the select list', q{SELECT es_poll('polls', wait => '60s');} ],
		[ 'twice in one statement', q{SELECT p.stream, q.stream FROM es_poll('polls', 'ann', wait => '60s') AS p,
			es_poll('polls', 'ann') AS q;} ],
		[ 'UNION', "$poll UNION ALL SELECT es_append::text FROM es_append('b-7', 'any', 'x');" ],
		[ 'a statement that reads a table by a function after it',
			q{SELECT stream, es_stream_version(stream) > 0 FROM es_poll('polls', wait => '60s');} ],
		[ 'MATERIALIZED', "WITH p AS MATERIALIZED ($poll) SELECT * FROM p AS a, p AS b;" ],
		[ 'in an EXCEPTION block', q{DO $$ DECLARE s text; BEGIN SELECT stream INTO s FROM es_poll('polls', wait => '60s');
			RAISE NOTICE '%', s; EXCEPTION WHEN division_by_zero THEN NULL; END $$;} ],
		[ 'several statements in one message', "SELECT 1\\; $poll\\; SELECT 2;" ])
	{
		my ($name, $script) = @$case;
		my $session;

		# the server asserts that no subtransaction is rolled back at COMMIT
		next if $script =~ /WITH HOLD/ && query('SHOW debug_assertions') eq 'on';
		new_subscription();
		$session = start_session($node, $script);
		session_sleeps($session);
		append('a-1');
		like(finish_session($session), qr/a-1/, "$server, $name: it delivers what comes while it sleeps");
		# EXPLAIN does not show its rows
		is(query('SELECT count(*) FROM es_partitions WHERE cardinality(tokens) = 1'), '1', "$server, $name: and it stays in flight");
	}

	# Isolation levels at which it could not see what is new
	foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
	{
		like(finish_session(start_session($node, "BEGIN ISOLATION LEVEL $level; $poll;")),
			qr/ERROR:  (0A000|25\w{3}|55000)/, "$server, $level: refused");
	}
	return;
}

#
# How soon it wakes up
#

# A consumer that polls so many times and says how many milliseconds passed since a
# time.
sub polls_script
{
	my ($count, $since) = @_;

	return join '', map { qq{
SELECT token, extract(epoch FROM clock_timestamp() - $since) * 1000 AS late FROM es_poll('polls', wait => '60s') LIMIT 1 \\gset
SELECT es_ack('polls', :token) \\g /dev/null
\\echo :late
} } 1 .. $count;
}

sub is_soon
{
	my ($milliseconds, $limit, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok($milliseconds, '<', $limit, "$name: within $limit ms");
	note(sprintf '%s: %.1f ms', $name, $milliseconds);
	return;
}

# After a commit
sub wakes_up
{
	my ($server, $limit, $count) = @_;
	my $session;

	$count //= 11;
	new_subscription();
	$session = start_session($node, polls_script($count, 'recorded_at'));
	foreach (1 .. $count)
	{
		session_sleeps($session);
		sleep 0.12;
		append('a-1');
		my $lines = () = $session->{out} =~ /\n/g;
		wait_until('it is delivered', sub {
				$session->{run}->pump_nb if $session->{run}->pumpable;
				(() = $session->{out} =~ /\n/g) >= $_ }, 0.01)
		  for $_;
	}
	is_soon(median(split /\n/, finish_session($session)), $limit, "$server, after a commit");
	return;
}

# Polls once, and says when it had something; the end of the blocking is at the time
# that the statement says.
sub wakes_up_after
{
	my ($server, $limit, $name, $before, $end) = @_;
	my @late;

	foreach (1 .. ($limit < 1000 ? 5 : 1))
	{
		my ($session, $ended, $said);

		new_subscription();
		$before->();
		$session = start_session($node, q{SELECT stream, extract(epoch FROM clock_timestamp()) FROM es_poll('polls', wait => '60s');});
		session_sleeps($session);
		sleep 0.15;
		$ended = $end->();
		$said = finish_session($session);
		like($said, qr/^a-1\|/, "$server, $name: it delivers") or return;
		push @late, ($said =~ /\|(\S+)$/)[0] * 1000 - $ended * 1000;
	}
	is_soon(median(@late), $limit, "$server, $name");
	return;
}

sub now_in_server { return query('SELECT extract(epoch FROM clock_timestamp())') }

sub wakes_up_after_all
{
	my ($server, $limit) = @_;
	my $other = $node->background_psql('postgres');

	foreach my $end ('COMMIT', 'ROLLBACK')
	{
		wakes_up_after($server, $limit, "$end of an older transaction",
			sub {
				$other->query_safe(q{BEGIN; SELECT es_append('b-1', 'any', 'x')});
				append('a-1');
			},
			sub { return $other->query_safe("SELECT extract(epoch FROM clock_timestamp());\n$end") });
		# COMMIT PREPARED wakes nothing; it is seen at the next look
		wakes_up_after($server, 1500, "$end PREPARED of an older transaction",
			sub {
				query(q{BEGIN; SELECT es_append('b-1', 'any', 'x'); PREPARE TRANSACTION 'p'});
				append('a-1');
			},
			sub { my $now = now_in_server(); query("$end PREPARED 'p'"); return $now; });
	}
	wakes_up_after($server, 1500, 'COMMIT PREPARED of its event',
		sub { query(q{BEGIN; SELECT es_append('a-1', 'any', 'x'); PREPARE TRANSACTION 'p'}) },
		sub { my $now = now_in_server(); query(q{COMMIT PREPARED 'p'}); return $now; });
	wakes_up_after($server, 1500, 'es_seek',
		sub { append('a-1'); query(q{SELECT es_seek('polls', NULL)}) },
		sub { my $now = now_in_server(); query(q{SELECT es_seek('polls', position - 1) FROM es_partitions}); return $now; });
	wakes_up_after($server, 1500, 'the rest, when another has acknowledged a part and gone',
		sub { append('a-1') foreach 1 .. 2; query(q{SELECT es_poll('polls', max_count => 1)}) },
		sub { my $now = now_in_server(); query(q{SELECT es_ack('polls', token) FROM es_partitions}); return $now; });
	$other->quit;
	return;
}

# When a lease expires, and when a retry is due
sub wakes_up_in_time
{
	my ($server, $limit) = @_;
	my (@lease, @retry);

	foreach (1 .. 3)
	{
		my $session;

		new_subscription(q{lease => '400ms'});
		append('a-1');
		query(q{SELECT es_poll('polls', 'gone')});
		$session = start_session($node, q{
			SELECT extract(epoch FROM leased_until) AS lease FROM es_partitions \gset
			SELECT attempt, extract(epoch FROM clock_timestamp()) - :lease FROM es_poll('polls', wait => '60s');
			SELECT es_nack('polls', token, uptos[1], 'no') FROM es_partitions;
			SELECT extract(epoch FROM retry_at) AS retry FROM es_failures \gset
			SELECT attempt, extract(epoch FROM clock_timestamp()) - :retry FROM es_poll('polls', wait => '60s');});
		like(finish_session($session), qr/^2\|(\S+)\nretry\n3\|(\S+)$/, "$server, after a lease and a pause: it delivers") or return;
		my @late = $session->{out} =~ /\|(\S+)$/mg;
		cmp_ok($late[0], '>=', 0, "$server: not before the lease is over");
		cmp_ok($late[1], '>=', 0, "$server: not before the retry is due");
		push @lease, $late[0] * 1000;
		push @retry, $late[1] * 1000;
	}
	is_soon(median(@lease), $limit, "$server, after a lease");
	is_soon(median(@retry), $limit, "$server, when a retry is due");
	return;
}

# Its time is over: neither before nor long after.
sub gives_up
{
	my ($server) = @_;

	foreach my $wait (0.05, 0.3, 1.2)
	{
		my ($found, $took);

		new_subscription();
		($found, $took) = split /\|/, finish_session(start_session($node, qq{
			SELECT clock_timestamp() AS began \\gset
			SELECT count(*), extract(epoch FROM clock_timestamp() - :'began') FROM es_poll('polls', wait => '${wait}s');}));
		is($found, '0', "$server, nothing comes: no row");
		cmp_ok($took, '>=', $wait, "$server, nothing comes: not before $wait s");
		cmp_ok($took, '<', $wait + 2, "$server, nothing comes: nor long after");
	}
	return;
}

#
# How it ends
#

sub is_ended
{
	my ($server) = @_;

	foreach my $case (
		[ 'pg_cancel_backend', 'pg_cancel_backend(pid)', qr/57014/ ],
		[ 'pg_terminate_backend', 'pg_terminate_backend(pid)', qr/57P01/ ])
	{
		my ($name, $function, $code) = @$case;

		foreach my $script ("$poll;", "BEGIN; $poll;", "BEGIN; DECLARE c CURSOR FOR $poll; FETCH ALL FROM c;",
			"DO \$\$ BEGIN PERFORM es_poll('polls', wait => '60s'); END \$\$;")
		{
			my ($session, $began);

			new_subscription();
			$session = start_session($node, $script);
			session_sleeps($session);
			sleep 0.1;
			$began = time();
			query("SELECT $function FROM pg_stat_activity WHERE application_name = '$session->{name}'");
			like(finish_session($session), $code, "$server, $name: it ends");
			cmp_ok(time() - $began, '<', 2, "$server, $name: at once");
		}
	}

	# the session goes on after an error
	foreach my $script ("$poll;", "BEGIN; $poll;\nROLLBACK;", "BEGIN; SAVEPOINT a; $poll;\nROLLBACK TO a; SELECT 1;\nCOMMIT;",
		"DO \$\$ BEGIN PERFORM es_poll('polls', wait => '60s'); EXCEPTION WHEN query_canceled THEN RAISE NOTICE '57014'; END \$\$;")
	{
		my ($session, $said);

		new_subscription();
		append('b-1');
		$session = start_session($node, "\\set ON_ERROR_STOP 0\n$script\n"
			  . "SELECT es_append('a-1', 'any', 'x') IS NOT NULL; $poll; SELECT 'end';");
		session_sleeps($session);
		sleep 0.1;
		query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = '$session->{name}'");
		$said = finish_session($session);
		like($said, qr/^t\na-1\nend/m, "$server, an error: the session goes on");
		like($said, qr/57014/, "$server, an error: it ends");
	}

	# it heeds its time-out
	foreach my $script ("$poll;", "BEGIN; $poll;\nCOMMIT;")
	{
		my $said;
		my $began = time();

		new_subscription();
		$said = finish_session(start_session($node,
				"SET statement_timeout = '2s';\n$script\nRESET statement_timeout;\n"
			  . "SELECT es_append('a-1', 'any', 'x') IS NOT NULL; $poll; SELECT 'end';"));
		is($said, "t\na-1\nend", "$server, statement_timeout: no row, and the session goes on");
		cmp_ok(time() - $began, '<', 6, "$server, statement_timeout: in time");
	}
	return;
}

# What others do to the tables while it sleeps does not wait for it.
sub stands_in_nobodys_way
{
	my ($server) = @_;
	my $session;

	new_subscription();
	$session = start_session($node, "BEGIN;\n$poll;\nCOMMIT;");
	session_sleeps($session);
	foreach my $statement (
		'ALTER TABLE es_events SET (fillfactor = 90)',
		'ALTER TABLE es_partitions SET (fillfactor = 60)',
		'ALTER TABLE es_subscriptions ALTER COLUMN categories SET STATISTICS 10',
		'ALTER TABLE es_failures ADD CHECK (attempts >= 0)',
		'LOCK TABLE es_events, es_partitions, es_subscriptions, es_failures IN ACCESS EXCLUSIVE MODE',
		'REINDEX TABLE es_events',
		'CREATE INDEX CONCURRENTLY other ON es_events (type)',
		'DROP INDEX CONCURRENTLY other',
		'VACUUM FULL es_partitions',
		'CLUSTER es_events USING es_events_pkey')
	{
		my $transaction = $statement =~ /CONCURRENTLY|VACUUM/ ? $statement : "BEGIN; $statement; COMMIT";
		my $said;

		# CONCURRENTLY waits for the end of transactions that have a snapshot, or a lock on the
		# table, when it looks: it may look while the call does.
		foreach (1 .. $statement =~ /CONCURRENTLY/ ? 5 : 1)
		{
			$said = ($node->psql('postgres', "SET lock_timeout = '5s';\nSET statement_timeout = '5s';\n$transaction",
					on_error_stop => 1))[2];
			last if $said !~ /canceling statement/;
			query('DROP INDEX IF EXISTS other') if $statement =~ /CREATE/;
		}
		is($said, '', "$server, asleep: $statement");
	}
	append('a-1');
	is(finish_session($session), 'a-1', "$server, after all of that it delivers");

	new_subscription();
	$session = start_session($node, "$poll;");
	session_sleeps($session);
	query(q{SELECT es_drop_subscription('polls')});
	like(finish_session($session), qr/ERROR:  42704: subscription "polls" does not exist/, "$server, es_drop_subscription ends it");
	return;
}

#
# Ends of databases and servers
#

sub ends_with
{
	my ($server, $name, $limit, $code, $end, @params) = @_;
	my $session = start_session($node, "$poll;", @params);
	my $took;

	wait_until("it sleeps", sub { query(qq{SELECT count(*) FROM pg_stat_activity
		WHERE application_name = '$session->{name}' AND wait_event_type = 'Extension'}) });
	$took = time();
	$end->();
	$took = time() - $took;
	cmp_ok($took, '<', $limit, "$server, $name: is not held up");
	like(finish_session($session), $code, "$server, $name: ends it");
	note(sprintf '%s, %s: %.2f s', $server, $name, $took);
	return;
}

sub ends_with_all
{
	my ($server) = @_;

	$node->safe_psql('postgres', 'CREATE DATABASE other');
	$node->safe_psql('other', q{CREATE EXTENSION eventstore; SELECT es_create_subscription('polls', 'a')});
	ends_with($server, 'DROP EXTENSION', 5, qr/ERROR:  [0-9A-Z]{5}: (?!.*cache lookup)/,
		sub { $node->safe_psql('other', "SET lock_timeout = '4s'; DROP EXTENSION eventstore") }, database => 'other');
	$node->safe_psql('other', q{CREATE EXTENSION eventstore; SELECT es_create_subscription('polls', 'a')});
	ends_with($server, 'another extension in its place', 5, qr/ERROR:  [0-9A-Z]{5}: (?!.*cache lookup)|^$/,
		sub { $node->safe_psql('other', q{SET lock_timeout = '4s'; BEGIN; DROP EXTENSION eventstore; CREATE EXTENSION eventstore; COMMIT;
			SELECT pg_sleep(1.5); SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND datname = 'other'
			   AND backend_type = 'client backend'}) },
		database => 'other');
	$node->safe_psql('other', q{SELECT es_create_subscription('polls', 'a')});
	ends_with($server, 'DROP DATABASE WITH (FORCE)', 5, qr/57P01/,
		sub { query('DROP DATABASE other WITH (FORCE)') }, database => 'other');
	new_subscription();
	ends_with($server, 'a fast stop', 10, qr/57P01/, sub { $node->stop('fast') });
	$node->start;
	ends_with($server, 'an immediate stop', 10, qr/server closed|57P02|terminating/, sub { $node->stop('immediate') });
	$node->start;
	return;
}

#
# Many
#

# CPU seconds that the processes have taken, where the system says so.
sub cpu_seconds
{
	my $ticks = 0;

	foreach my $pid (@_)
	{
		open my $file, '<', "/proc/$pid/stat" or return;
		my @fields = split ' ', (<$file> =~ s/^.*\)//r);
		$ticks += $fields[11] + $fields[12];
	}
	return $ticks / (POSIX::sysconf(POSIX::_SC_CLK_TCK()) || 100);
}

# A stream of commits to another category, for some seconds; how many.
sub commit_stream
{
	my ($seconds) = @_;
	my $stream = start_session($node, "SELECT es_append('b-' || :client_id, 'any', 'x');",
		pgbench => [ '-c', 2, '-T', $seconds, '-R', 1000 ]);
	my $said = finish_session($stream);

	$said =~ /actually processed: (\d+)/ or die $said;
	return ($1, $said);
}

sub many_at_once
{
	my ($server, $clients) = @_;
	my (@pids, $cpu, $commits, $said, $session, $xids, $looks);
	my $seconds = 3;

	new_subscription();
	$session = start_session($node, "SELECT count(*) FROM es_poll('polls', wait => '90s');",
		pgbench => [ '-c', $clients, '-t', 1 ]);
	session_sleeps($session, $clients * 0.9);
	@pids = split /\n/, query("SELECT pid FROM pg_stat_activity WHERE application_name = '$session->{name}'");
	is(scalar(@pids), $clients, "$server: $clients long polls");
	$cpu = cpu_seconds(@pids);
	$xids = query('SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint');
	($commits, $said) = commit_stream($seconds);
	$cpu = defined $cpu ? cpu_seconds(@pids) - $cpu : 0;
	$xids = query('SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint') - $xids - $commits;
	cmp_ok($commits, '>', 300, "$server: others commit");
	unlike($said, qr/aborted|ERROR|failed transactions: [1-9]/, "$server: no commit fails");
	cmp_ok($cpu / $seconds, '<', 1.5, "$server: $clients long polls do not keep the machine busy") if $cpu;
	note(sprintf '%s: %d long polls, %d commits in %d s: %.2f s of CPU time, %d transaction ids more', $server, $clients, $commits,
		$seconds, $cpu, $xids);

	# one of them gets an event, and the rest nothing
	append('a-1');
	wait_until('one has it', sub { query(q{SELECT count(*) FROM es_partitions WHERE leased_until IS NOT NULL}) });
	query(q{SELECT es_drop_subscription('polls')});
	$said = finish_session($session);

	# a call that locked the partition just after it has nothing, and ended
	my $ended = () = $said =~ /ERROR:  subscription "polls" does not exist/g;
	cmp_ok($ended, '<', $clients, "$server: not the one that has it");
	cmp_ok($ended, '>=', $clients * 3 / 4, "$server: but the others end with the subscription");
	return;
}

# More processes than fit into one word of the marks.  The last of them is woken as
# soon as the first.
sub last_is_woken
{
	my ($server, $idle) = @_;
	my $filler = start_session($node, "\\sleep 60 s\nSELECT 1;", pgbench => [ '-c', $idle, '-t', 1 ]);
	my @number;

	wait_until('the others are there', sub {
			query("SELECT count(*) FROM pg_stat_activity WHERE application_name = '$filler->{name}'") >= $idle });
	my @low = low_processes($server, $idle);
	wakes_up("$server, the last process", 50, 7);
	$_->quit foreach @low;
	$filler->{run}->signal('TERM');
	eval { $filler->{run}->finish };
	return;
}

# Sessions that hold the numbers of processes that others have left in the first word,
# so that the next one is beyond it.
sub low_processes
{
	my ($server, $idle) = @_;
	my ($here, $backend, @low);

	return if $idle <= 100;
	do
	{
		push @low, $here if $here;
		$here = $node->background_psql('postgres');
		# the number of its process, nearly
		$backend = $here->query_safe(q{SELECT split_part(virtualtransaction, '/', 1) FROM pg_locks WHERE pid = pg_backend_pid() LIMIT 1});
	} while ($backend <= 63 && @low < 20);
	cmp_ok($backend, '>', 63, "$server: its process is not in the first word");
	$here->quit;
	return @low;
}

# Each has a subscription of its own; one commit is for all.
sub all_are_woken
{
	my ($server, $clients) = @_;
	my $session;

	query(qq{SELECT es_drop_subscription(name) FROM es_subscriptions;
		CREATE TABLE woken (client int, late float);
		SELECT es_create_subscription('own ' || i, 'a', start_position => (SELECT max(position) FROM es_events))
		  FROM generate_series(0, $clients - 1) AS i});
	$session = start_session($node, q{
		SELECT extract(epoch FROM clock_timestamp() - recorded_at)::float8 AS late
		  FROM es_poll('own ' || :client_id, wait => '90s') \gset
		INSERT INTO woken VALUES (:client_id, :late);}, pgbench => [ '-c', $clients, '-t', 1, '-j', 1 ]);
	session_sleeps($session, $clients);
	append('a-1');
	unlike(finish_session($session), qr/aborted|ERROR/, "$server: $clients consumers, one event");
	is(query('SELECT count(DISTINCT client) FROM woken'), $clients, "$server: all have it");
	note("$server: the last of $clients has it after " . query('SELECT round(max(late)::numeric, 3) FROM woken') . ' s');
	return;
}

sub has_worker
{
	ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity
		WHERE backend_type = 'eventstore worker' AND datname = 'postgres'}), 'there is a worker');
	return;
}

sub finish
{
	$node->stop;
	return;
}

# The server that all of this is about.
sub begin
{
	my ($name, %params) = @_;

	$node = new_store($name, %params, fsync => 'off', conf => "autovacuum = off\n" . ($params{conf} // ''));
	query('CREATE TABLE junk (n int)');
	return;
}

1;
