# Sessions that poll subscriptions: one that waits, and consumers that go on
# whatever happens to them.
package EventStoreSubscriptions;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Open3 qw(open3);
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use EventStoreTest;

our @EXPORT = qw(
  start_session finish_session commit_outcome session_sleeps session_state
  start_consumer kill_consumer stop_consumers
  read_records checkpoints checkpoints_rise);

my $patience = $PostgreSQL::Test::Utils::timeout_default;
my $sessions = 0;

#
# A session that does one thing
#

# A psql in the background; its name is its application_name.
#   script    its input; or
#   pgbench   options of a pgbench that runs it instead
#   database  postgres if none
sub start_session
{
	my ($node, $script, %params) = @_;
	my $name = 'session ' . ++$sessions;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
	my $connection = $node->connstr($params{database} // 'postgres');
	my %session = (node => $node, name => $name, out => '', err => '');

	append_to_file($file, "$script\n");
	local $ENV{PGAPPNAME} = $name;
	$session{run} = IPC::Run::start(
		$params{pgbench}
		? [ 'pgbench', '-n', @{ $params{pgbench} }, '--random-seed', int rand 2**31, '-f', $file, $connection ]
		: [ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d', $connection, '-f', $file ],
		'<', '/dev/null', '>', \$session{out}, '2>', \$session{err},
		IPC::Run::timeout($patience));
	return \%session;
}

# Waits for its end; returns what it has said.
sub finish_session
{
	my ($session) = @_;

	$session->{run}->finish;
	$session->{out} =~ s/\n\z//;
	return $session->{err} eq '' ? $session->{out} : "$session->{out}$session->{err}";
}

# Does the script come to its end without waiting at a commit, on a server whose only
# synchronous standby does not exist?  Returns 'waits', or what it has said.  One that waits
# is let go on, as often as it does.
sub commit_outcome
{
	my ($node, $script) = @_;
	my $session = start_session($node, $script);
	my $waited = 0;

	wait_until('the script ends', sub {
			$session->{run}->pump_nb;
			return 1 if !$session->{run}->pumpable;
			$waited = 1 if $node->safe_psql('postgres', qq{
				SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
				 WHERE application_name = '$session->{name}' AND wait_event = 'SyncRep'});
			return 0;
		}, 0.02);
	my $said = finish_session($session);
	return $waited ? 'waits' : $said;
}

# What can be seen of it in the server: what it waits for, if it has a snapshot or
# a transaction id, and its locks.
sub session_state
{
	my ($session) = @_;

	return $session->{node}->safe_psql('postgres', qq{
		SELECT concat_ws(' ', CASE WHEN a.wait_event_type = 'Extension' THEN 'Extension' ELSE coalesce(a.wait_event, 'none') END,
			CASE WHEN a.backend_xmin IS NOT NULL THEN 'xmin' END,
			CASE WHEN a.backend_xid IS NOT NULL THEN 'xid' END,
			(SELECT string_agg(l.locktype, ' ' ORDER BY l.locktype) FROM pg_locks AS l
			  WHERE l.pid = a.pid AND NOT (l.locktype = 'virtualxid' AND l.virtualxid = l.virtualtransaction)))
		  FROM pg_stat_activity AS a WHERE a.application_name = '$session->{name}'});
}

# Waits until all of its connections are in the middle of a wait.
sub session_sleeps
{
	my ($session, $count) = @_;

	$count //= 1;
	wait_until("$session->{name} sleeps", sub {
			$session->{run}->pump_nb if $session->{run}->pumpable;
			$session->{node}->safe_psql('postgres', qq{
				SELECT count(*) FROM pg_stat_activity
				 WHERE application_name = '$session->{name}' AND wait_event_type = 'Extension'}) >= $count }, 0.01);
	return;
}

#
# Consumers
#
# A consumer is a process with a psql of its own.  What it has done it writes to a
# file, each time before it sends that to the server, so that a kill takes nothing back:
#
#	H time id stream version position token partition attempt	handled
#	N position			given back by es_nack, and the server has said so
#	A token position ...	these were acknowledged, and the server has said so
#	? token				was acknowledged, but there was no answer
#	V					a token was void
#	X code				another error
#
# It connects again, to where the file connection says, until the file stop is there.
#

my $consumers = 0;

# Sends statements; returns their rows, and an error's code, or 'lost' if there is no
# connection any more.
sub ask
{
	my ($session, $sql) = @_;
	my (@rows, $error);

	local $SIG{PIPE} = 'IGNORE';
	if (!defined $session->{pid})
	{
		my $connection = slurp_file("$session->{folder}/connection");

		$session->{pid} = open3($session->{in}, $session->{out}, undef,
			'psql', '-XAtq', '-F', ' ', '-v', 'VERBOSITY=sqlstate', '-d', $connection);
		$session->{in}->autoflush;
	}
	print { $session->{in} } "$sql\n\\echo end\n";
	while (my $line = readline $session->{out})
	{
		chomp $line;
		return (\@rows, $error) if $line eq 'end';
		if ($line =~ /^(?:ERROR|FATAL): +(\w+)/) { $error //= $1 }
		# psql may still come to the echo
		elsif ($line =~ /^server closed the connection/) { $error //= 'lost' }
		else { push @rows, $line }
	}
	waitpid $session->{pid}, 0;
	close $session->{$_} foreach qw(in out);
	delete $session->{pid};
	return (\@rows, 'lost');
}

sub record
{
	my ($consumer, @what) = @_;

	syswrite $consumer->{records}, "@what\n";
	return;
}

sub error_is
{
	my ($consumer, $error, $token) = @_;

	return 0 unless defined $error;
	if ($error eq 'ES006') { record($consumer, 'V') }
	elsif ($error ne 'lost') { record($consumer, 'X', $error) }
	record($consumer, '?', $token) if defined $token && $error ne 'ES006';
	return 1;
}

# A delivery: token and events; none if there was none.
sub poll
{
	my ($consumer, $after) = @_;
	my $name = defined $consumer->{name} ? "'$consumer->{name}'" : 'NULL';
	my $count = int(1 + rand() ** 3 * 300);
	my $wait = rand() < 0.3 ? 0 : int(rand 400);
	my ($rows, $error) = ask($consumer, sprintf q{
		SELECT 'E', id, stream, version, position, token, partition, attempt
		  FROM es_poll('%s', %s, %d, '%d ms', %s);}, $consumer->{subscription}, $name, $count, $wait, $after // 'NULL');
	my @events = map { [ split / / ] } grep { /^E .*[0-9]$/ } @$rows;

	# what came before an error is not to be relied on
	return if error_is($consumer, $error) || !@events;
	return { token => $events[0][5], events => \@events };
}

# Handles the events of a delivery, but not those of streams that have failed.  False
# if it has to be given up.
sub handle
{
	my ($consumer, $delivery, $failed) = @_;

	foreach my $event (@{ $delivery->{events} })
	{
		my (undef, $id, $stream, $version, $position) = @$event;

		next if $failed->{$stream};
		if (rand() < $consumer->{nacks})
		{
			my $action = rand() < 0.1 ? 'park' : 'retry';
			my (undef, $error) = ask($consumer,
				"SELECT es_nack('$consumer->{subscription}', $delivery->{token}, $position, 'by chance', '$action');");

			return 0 if error_is($consumer, $error);
			$failed->{$stream} = 1;
			record($consumer, 'N', $position);
			next;
		}
		record($consumer, 'H', sprintf('%.6f', time()), @$event[ 1 .. 7 ]);
		push @{ $delivery->{handled} }, $position;
		sleep 0.0005 if rand() < $consumer->{pauses};
	}
	return 1;
}

# Acknowledges what was handled, up to a position if one is given.
sub ack
{
	my ($consumer, $delivery, $deliveries, $upto) = @_;
	my @acked = grep { !defined $upto || $_ <= $upto } map { @{ $_->{handled} // [] } } @$deliveries;
	my ($rows, $error) = ask($consumer, sprintf "SELECT es_ack('%s', %s, %s);",
		$consumer->{subscription}, $delivery->{token}, $upto // 'NULL');

	# without its answer it is not known to be done
	$error //= 'lost' if !grep { /^\d+$/ } @$rows;
	return 0 if error_is($consumer, $error, $delivery->{token});
	record($consumer, 'A', $delivery->{token}, @acked);
	foreach my $one (@$deliveries)
	{
		$one->{handled} = [ grep { defined $upto && $_ > $upto } @{ $one->{handled} // [] } ];
	}
	return 1;
}

# Outside: handles, and acknowledges after that.
sub consume_outside
{
	my ($consumer) = @_;
	my @deliveries = poll($consumer) or return;
	my $last = $deliveries[0];
	my %failed;

	# more, before or after what came first is handled
	my $at_once = rand() < 0.5;
	handle($consumer, $last, \%failed) or return unless $at_once;
	while (@deliveries < 4 && rand() < 0.3)
	{
		my $more = poll($consumer, $last->{token}) or last;

		push @deliveries, $last = $more;
		handle($consumer, $more, \%failed) or return unless $at_once;
	}
	foreach my $delivery ($at_once ? @deliveries : ())
	{
		handle($consumer, $delivery, \%failed) or return;
	}

	# a part of it, and the rest; each of them, or all at once
	my @positions = @{ $deliveries[0]{handled} // [] };
	if (@positions && rand() < 0.3)
	{
		ack($consumer, $deliveries[0], [ $deliveries[0] ], $positions[ rand @positions ]) or return;
	}
	if (@deliveries > 1 && rand() < 0.5)
	{
		ack($consumer, $deliveries[0], [ $deliveries[0] ]) or return;
	}
	ack($consumer, $last, \@deliveries) or return;
	# the answer was lost: said again
	ack($consumer, $last, []) if rand() < 0.1;
	return;
}

# Inside: everything is one transaction.
sub consume_inside
{
	my ($consumer) = @_;
	my ($rows, $error);

	if (rand() < 0.5)
	{
		($rows, $error) = ask($consumer, sprintf q{
			\set token 0
			BEGIN;
			WITH delivery AS MATERIALIZED (SELECT * FROM es_poll('%s', %s, %d, '%d ms')),
				handled AS (INSERT INTO taken (position, stream, version)
					SELECT position, stream, version FROM delivery)
			SELECT coalesce(max(token), 0) AS token FROM delivery \gset
			SELECT es_ack('%s', :token) WHERE :token > 0 \g /dev/null
			COMMIT;}, $consumer->{subscription}, defined $consumer->{name} ? "'$consumer->{name}'" : 'NULL',
			1 + rand 200, rand() < 0.5 ? 0 : rand 300, $consumer->{subscription});
	}
	else
	{
		(undef, $error) = ask($consumer, 'BEGIN;');
		my $delivery = defined $error ? undef : poll($consumer);

		($rows, $error) = ask($consumer, $delivery
			? 'INSERT INTO taken (position, stream, version) VALUES '
			  . join(', ', map { "($_->[4], '$_->[2]', $_->[3])" } @{ $delivery->{events} })
			  . ';'
			  . (rand() < 0.1 ? 'ROLLBACK;' : "SELECT es_ack('$consumer->{subscription}', $delivery->{token}) \\g /dev/null\nCOMMIT;")
			: 'ROLLBACK;');
	}
	error_is($consumer, $error);
	ask($consumer, 'ROLLBACK;') if defined $error && $error ne 'lost';
	return;
}

# The process's whole life.
sub consume
{
	my ($consumer) = @_;
	my $once = $consumer->{inside} ? \&consume_inside : \&consume_outside;

	srand($consumer->{seed});
	# nor without the test
	while (!-e "$consumer->{folder}/stop" && getppid == $consumer->{test})
	{
		$once->($consumer);
		sleep 0.02 unless $consumer->{pid};
	}
	return;
}

# A consumer in a process of its own.
#   folder        of the files connection, stop and those of records
#   subscription
#   name          none if undef
#   inside        whether it handles in the transaction of the poll
#   nacks, pauses how often, from 0 to 1
sub start_consumer
{
	my (%consumer) = @_;
	my $number = ++$consumers;
	my $pid;

	$consumer{seed} = int rand 1_000_000;
	$consumer{test} = $$;
	$consumer{nacks} //= 0.01;
	$consumer{pauses} //= 0.05;
	$consumer{file} = "$consumer{folder}/records $number";
	$pid = fork;
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		local $ENV{PGAPPNAME} = $consumer{inside} ? 'inside' : 'outside';
		open $consumer{records}, '>>', $consumer{file} or POSIX::_exit(1);
		eval { consume(\%consumer); 1 } or record(\%consumer, 'X', $@ =~ s/\s+/_/gr);
		# nothing of the test is to end here
		POSIX::_exit(0);
	}
	$consumer{process} = $pid;
	return \%consumer;
}

# kill -9; its psql notices when it has an answer.
sub kill_consumer
{
	my ($consumer) = @_;

	kill 'KILL', $consumer->{process};
	waitpid $consumer->{process}, 0;
	return;
}

# Lets them come to the end of what they have in flight.
sub stop_consumers
{
	my ($folder, @consumers_) = @_;

	append_to_file("$folder/stop", '');
	waitpid $_->{process}, 0 foreach @consumers_;
	unlink "$folder/stop";
	return;
}

# What all of them have written: lines, split into words.  A last line that was
# interrupted is left out.
sub read_records
{
	my ($folder) = @_;

	return map { [ split / / ] } map { slurp_file($_) =~ /^(.*)\n/mg } glob("'$folder/records '*");
}

# Checkpoints, by subscription and partition.
sub checkpoints
{
	my ($node) = @_;

	return map { split /\|/ } split /\n/,
	  $node->safe_psql('postgres', q{SELECT subscription || ' ' || partition, position FROM es_partitions});
}

# None is below the one that was seen before; %$before is moved on.
sub checkpoints_rise
{
	my ($node, $before, $name) = @_;
	my %now = checkpoints($node);
	my @fallen = grep { $now{$_} < ($before->{$_} // 0) } sort keys %now;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(', ', map { "$_ from $before->{$_} to $now{$_}" } @fallen), '', "$name: no checkpoint goes back");
	%$before = %now;
	return;
}

1;
