# Commands survive whatever is killed: each that was answered is there, each that was
# not is repeated with its id, and takes effect once.  Snapshots that are left are
# right.  Nobody waits for the disk because of a snapshot, but for what else is in
# its transaction.  The same on a standby, after its promotion, and after a dump
# is restored.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreAggregates;
use EventStoreDumps;
use EventStoreKills;
use EventStoreProjections;
use EventStoreSubscriptions;
use EventStoreTest;
use IPC::Run;
use List::Util qw(shuffle sum0);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = few_or_many(5, 10);    # there are 5 kinds
my $folder = PostgreSQL::Test::Utils::tempdir();
my $reducer = q{'account.es_reduce'::regproc};

use_seed();

#
# Clients
#
# A client has a list of transactions, each of one or two commands with ids.  Its psql
# does one after the other and says when one is committed; when the psql ends before
# its time, another begins with the first that is not known to be committed.
#

my $commands = 0;

sub new_command
{
	my $k = ++$commands;
	my $stream = 'account-' . $k % 6;
	my ($amount, $parts) = (int(rand 200) - 80, 1 + $k % 3);

	return {
		k     => $k,
		parts => $parts,
		stream => $stream,
		sql   => qq{SELECT 'v', version FROM es_execute('$stream', 'account.move'::regproc, '{"k": $k, "amount": $amount, "parts": $parts}', $reducer, }
		  . qq{jsonb_build_object('command_id', md5('$k')::uuid));\n}
	};
}

# Two commands of a transaction are in the order of their streams: no deadlock.
sub new_transaction
{
	my @both = sort { $a->{stream} cmp $b->{stream} } map { new_command() } 1 .. (rand() < 0.2 ? 2 : 1);
	my $sql = join '', map { $_->{sql} } @both;

	$sql = "BEGIN;\n${sql}COMMIT;\n" if @both > 1;
	$sql .= "SELECT pg_sleep(0.02);\n" if rand() < 0.2;
	return { commands => \@both, sql => $sql };
}

sub new_client
{
	return { answered => 0, runs => 0, transactions => [ map { new_transaction() } 1 .. $_[0] ] };
}

sub start_client
{
	my ($node, $client) = @_;
	my $file = "$folder/client" . ++$client->{runs} . '-' . (0 + $client) . '.sql';
	my $last = $#{ $client->{transactions} };

	append_to_file($file, join '', map { "$client->{transactions}[$_]{sql}\\echo answered $_\n" } $client->{answered} .. $last);
	$client->{out} = $client->{err} = '';
	local $ENV{PGAPPNAME} = 'client';
	$client->{run} = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=sqlstate',
			'-d', $node->connstr('postgres'), '-f', $file
		],
		'<', '/dev/null', '>', \$client->{out}, '2>', \$client->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return;
}

# Notes what they were told, when they have ended; starts those again that have
# something left, and gives others more to do, if they are to have more.
my %errors;
my $unknown = 0;

sub look_after
{
	my ($node, $more, @clients) = @_;

	foreach my $client (@clients)
	{
		next unless $client->{run};
		$client->{run}->pump_nb if $client->{run}->pumpable;
		next if $client->{run}->pumpable;
		$client->{run}->finish;
		delete $client->{run};
		$client->{answered} = $1 + 1 while $client->{out} =~ /^answered (\d+)$/mg;
		$errors{$1}++ while $client->{err} =~ /(?:ERROR|FATAL): +(\w{5})$/mg;
		if ($client->{answered} <= $#{ $client->{transactions} }) { $unknown++ }
		elsif ($more) { push @{ $client->{transactions} }, map { new_transaction() } 1 .. $more }
		else { next }
		start_client($node, $client);
	}
	return;
}

sub are_done
{
	return !grep { $_->{run} } @_;
}

# All commands that were answered are there; %$stored is what became of all of them.
sub answers_are_kept
{
	my ($node, $name, @clients) = @_;
	my %stored = map { split /\|/ } split /\n/,
	  $node->safe_psql('postgres', q{SELECT data->>'command', count(*) FROM es_events GROUP BY 1});
	my (@lost, @wrong);

	foreach my $client (@clients)
	{
		foreach my $place (0 .. $#{ $client->{transactions} })
		{
			foreach my $command (@{ $client->{transactions}[$place]{commands} })
			{
				my $count = $stored{ $command->{k} } // 0;

				push @lost, $command->{k} if $count == 0 && $place < $client->{answered};
				push @wrong, $command->{k} if $count != 0 && $count != $command->{parts};
			}
		}
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("@lost", '', "$name: no command that was answered is lost");
	is("@wrong", '', "$name: each has all of its events, once");
	return;
}

#
# Crashes
#

# Only processes are killed: what was written is there.
my $node = new_store(
	'crash',
	fsync => 'off',
	conf  => q{
eventstore.snapshot_every = 3
restart_after_crash = on
deadlock_timeout = 100ms
});
my $began = time();
my @clients;
my $batch = 400;    # transactions of a client

sub meanwhile
{
	look_after($node, $batch, @clients);
	return;
}

# The one that was chosen may have ended meanwhile.
sub crash_one
{
	my ($name) = @_;

	wait_until("a $name is killed", sub { crash($node, $name, \&meanwhile) });
	return;
}

my %kill = (
	'kill -9 of a client\'s backend' => sub { crash_one('client') },
	'kill -9 of a reader\'s backend' => sub { crash_one('reader') },
	'an immediate stop' => sub { $node->stop('immediate'); $node->start },
	'kill -9 of the postmaster' => sub { kill_postmaster($node) },
	'terminate and cancel' => sub {
		one_of($node, 'client', \&meanwhile);
		$node->safe_psql('postgres', q{SELECT count(CASE WHEN pid % 2 = 0 THEN pg_terminate_backend(pid) ELSE pg_cancel_backend(pid) END)
			FROM pg_stat_activity WHERE application_name = 'client'});
	});

create_accounts($node);

@clients = map { new_client($batch) } 1 .. 8;
my $reading = qq{SELECT count(*) FROM (SELECT DISTINCT stream FROM es_events) AS e, es_state(e.stream, $reducer);\n};
my (%count, @kinds);
my $survived = 0;

start_client($node, $_) foreach @clients;
foreach my $round (1 .. $rounds)
{
	my $end = time() + 0.2 + 0.4 * rand;
	my $reader = start_repeating($node, 'reader', $reading);
	my ($kind, $name);

	@kinds = shuffle sort keys %kill unless @kinds;
	$kind = shift @kinds;
	$name = "round $round ($kind)";
	do { look_after($node, $batch, @clients); sleep 0.02 } while (time() < $end);
	$kill{$kind}->();
	$count{$kind}++;
	answers_are_kept($node, $name, @clients);
	$survived += snapshots_are_right($node, $name);
	end_psql($reader);
}
wait_until('all is answered', sub { look_after($node, 0, @clients); are_done(@clients) });

answers_are_kept($node, 'at the end', @clients);
is_query($node, q{SELECT count(DISTINCT data->>'command') FROM es_events}, $commands, 'at the end: every command is there');
decisions_are_chained($node, 'at the end');
states_are_right($node, 'at the end');
cmp_ok(snapshots_are_right($node, 'at the end'), '>', 0, 'at the end: there are snapshots');
same_without_snapshots($node, 'at the end');
delete @errors{qw(57014 57P01 57P02 57P03)};
is(join(', ', map { "$errors{$_} $_" } sort keys %errors), '', 'at the end: no other errors than those of the kills');
is(slurp_file($node->logfile) =~ /(TRAP|PANIC|segmentation)/i ? $1 : '', '', 'no failure in the log');
note(sprintf '%d rounds, %d commands, %s events, %d sessions lost, %d snapshots looked at, %.1f s: %s',
	$rounds, $commands, count_of($node, 'es_events'), $unknown, $survived, time() - $began,
	join ', ', map { "$count{$_} $_" } sort keys %count);
cmp_ok($unknown, '>', $rounds, 'at the end: sessions were lost');

#
# What was appended in the transaction of a snapshot is there after a crash
#

$node->append_conf('postgresql.conf', 'wal_writer_delay = 10s');
$node->stop('immediate');
$node->start;
foreach my $script (
	qq{BEGIN; SELECT es_append('account-0', 'any', 'moved', '{"amount": 7}'); SELECT es_state('account-0', $reducer); COMMIT},
	qq{BEGIN; SELECT es_state('account-0', $reducer); SELECT es_append('account-0', 'any', 'moved', '{"amount": 7}'); COMMIT},
	qq{BEGIN; SELECT es_snapshot('account-0', $reducer); SELECT es_append('account-0', 'any', 'moved', '{"amount": 7}');
		SELECT es_snapshot('account-0', $reducer); COMMIT},
	qq{SELECT es_execute('account-0', 'account.move'::regproc, '{"amount": 7}', $reducer)})
{
	my $version = $node->safe_psql('postgres', q{SELECT es_stream_version('account-0')});

	$node->safe_psql('postgres', 'DELETE FROM es_snapshots');
	$node->safe_psql('postgres', $script);
	$node->stop('immediate');
	$node->start;
	is_query($node, q{SELECT es_stream_version('account-0')}, $version + 1, "a crash after: $script");
	snapshots_are_right($node, 'and after it');
}
states_are_right($node, 'after those');
$node->stop;

#
# Who waits for the disk
#

$node = new_store(
	'commit',
	extension => 0,
	conf      => q{
synchronous_standby_names = 'nobody'
wal_level = replica
max_wal_senders = 2
eventstore.snapshot_every = 5
});

# What does not ask.
sub local_sql
{
	return $node->safe_psql('postgres', "SET synchronous_commit = local;\n$_[0]");
}

local_sql('CREATE EXTENSION eventstore; CREATE TABLE elsewhere (n int)');
{
	local $ENV{PGOPTIONS} = '-c synchronous_commit=local';

	create_accounts($node);
}
local_sql(q{SELECT es_append('account-1', 'any', 'moved', '{"amount": 1}') FROM generate_series(1, 20)});

my $state = qq{SELECT state->'n' FROM es_state('account-1', $reducer)};
my $snapshot = qq{SELECT es_snapshot('account-1', $reducer)};
my $append = q{SELECT version FROM es_append('elsewhere-1', 'any', 'x')};
my $execute = qq{SELECT version FROM es_execute('account-2', 'account.move'::regproc, '{"amount": 1, "parts": 6}', $reducer)};
my $nothing = qq{SELECT version FROM es_execute('account-1', 'account.move'::regproc, '{"amount": 1, "parts": 0}', $reducer)};

# [what it is, script, what becomes of it, how many snapshots are saved]
foreach my $case (
	[ 'es_state', "$state;", 20, 1 ],
	[ 'es_snapshot', "$snapshot;", 20, 1 ],
	[ 'es_state in BEGIN and COMMIT', "BEGIN; $state; COMMIT;", 20, 1 ],
	[ 'es_state in a function', "DO \$\$ BEGIN PERFORM es_state('account-1', $reducer); END \$\$;", '', 1 ],
	[ 'es_state after a savepoint', "BEGIN; SAVEPOINT a; $state; RELEASE a; COMMIT;", 20, 1 ],
	[ 'two snapshots', "BEGIN; $snapshot; $snapshot; COMMIT;", "20\n20", undef ],
	[ 'a command that has nothing to do', "$nothing;", 20, 1 ],
	[ 'a command that has', "$execute;", 'waits', 1 ],
	[ 'an append before es_state', "BEGIN; $append; $state; COMMIT;", 'waits', 1 ],
	[ 'an append after es_state', "BEGIN; $state; $append; COMMIT;", 'waits', 1 ],
	[ 'an append between two', "BEGIN; $snapshot; $append; $snapshot; COMMIT;", 'waits', undef ],
	[ 'a command after es_state', "BEGIN; $state; $execute; COMMIT;", 'waits', 2 ],
	[ 'a command before es_state', "BEGIN; $execute; $state; COMMIT;", 'waits', 2 ],
	[ 'an INSERT before es_state', "BEGIN; INSERT INTO elsewhere VALUES (1); $state; COMMIT;", 'waits', 1 ],
	[ 'an INSERT after es_state', "BEGIN; $state; INSERT INTO elsewhere VALUES (1); COMMIT;", 'waits', 1 ],
	[ 'one statement that appends and folds',
		"WITH a AS MATERIALIZED ($append) SELECT (SELECT state->'n' FROM es_state('account-1', $reducer)), version FROM a;", 'waits', 1 ],
	[ 'an append after es_state that is rolled back', "BEGIN; SAVEPOINT a; $state; ROLLBACK TO a; $append; COMMIT;", 'waits', 0 ],
	[ 'an append that is rolled back, and es_state', "BEGIN; SAVEPOINT a; $append; ROLLBACK TO a; $state; COMMIT;", 'waits', 1 ],
	[ 'an append in a transaction after es_state', "$state;\n$append;", 'waits', 1 ],
	[ 'an append after es_state that is rolled back as a whole', "BEGIN; $state; ROLLBACK; $append;", 'waits', 0 ],
	[ 'an append to its stream after es_state', "BEGIN; $state; SELECT es_append('account-1', 'any', 'moved', '{\"amount\": 1}'); COMMIT;", 'waits', 1 ])
{
	my ($name, $script, $expected, $saved) = @$case;
	my $said;

	local_sql('DELETE FROM es_snapshots');
	$said = commit_outcome($node, $script);
	is($said, $expected, "$name: " . ($expected eq 'waits' ? 'it waits for the disk' : 'it does not wait'));
	is(count_of($node, 'es_snapshots'), $saved, "$name: $saved snapshots are saved") if defined $saved;
}
$node->stop;

#
# A standby
#

my $primary = new_store('primary', fsync => 'off', streaming => 1, conf => "eventstore.snapshot_every = 50\n");

create_accounts($primary);
$primary->safe_psql('postgres', qq{
	CREATE SCHEMA without;
	SELECT es_append('account-' || i % 2, 'any', 'moved', jsonb_build_object('amount', i)) FROM generate_series(1, 400) AS i;
	SELECT es_state('account-1', $reducer)});

my $standby = new_standby($primary);

is(count_of($primary, 'es_snapshots'), 1, 'the primary has a snapshot of one stream');
$primary->safe_psql('postgres', q{SELECT es_append('account-1', 'any', 'moved', '{"amount": -1}') FROM generate_series(1, 3)});
$primary->wait_for_catchup($standby);

# What a function of the log says on either server.
sub same_on_both
{
	my ($sql, $name) = @_;
	my $expected = $primary->safe_psql('postgres', "SET eventstore.snapshot_every = 0; $sql");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	isnt($expected, '', "$name: it says something");
	return is($standby->safe_psql('postgres', $sql), $expected, "$name: the same on the standby");
}

same_on_both(qq{SELECT * FROM es_state('account-$_', $reducer)}, "es_state of account-$_") foreach 0, 1;
same_on_both(qq{SELECT * FROM es_state('account-0', $reducer, at_version => 77)}, 'es_state at a version');
same_on_both(qq{SELECT * FROM es_state('account-1', $reducer, at_time => (SELECT recorded_at FROM es_events WHERE stream = 'account-1' AND version = 120))},
	'es_state at a time');
same_on_both(qq{SELECT * FROM es_state('account-1', $reducer, at_time => 'infinity', by_time => 'occurred')}, 'es_state by the time of events');
same_on_both(qq{SELECT count(*), md5(string_agg(h::text, ',')) FROM es_history('account-1', $reducer) AS h}, 'es_history');
states_are_right($standby, 'on the standby');
is(count_of($standby, 'es_snapshots'), 1, 'the standby keeps nothing');
cmp_ok(buffers_of($standby, 'account-1'), '<', buffers_of($standby, 'account-0'),
	"it folds from the primary's snapshot");
foreach my $statement (qq{SELECT es_snapshot('account-0', $reducer)},
	qq{SELECT es_execute('account-0', 'account.move'::regproc, '{"amount": 1}', $reducer)},
	qq{SELECT es_execute('account-0', 'account.move'::regproc, '{"amount": 1, "parts": 0}', $reducer)},
	q{SELECT es_reducer('without')})
{
	like(($standby->psql('postgres', "\\set VERBOSITY verbose\n$statement"))[2], qr/ERROR:  25006: /, "on the standby: $statement");
}

is($standby->safe_psql('postgres', q{SELECT es_reducer('account')}), 'account.es_reduce(jsonb,es_recorded_event)', 'a reducer that is there is found');

# Commands go on while the primary is lost.
my %before = map { split /\|/ } split /\n/, $standby->safe_psql('postgres', 'SELECT stream, max(version) FROM es_events GROUP BY 1');
@clients = map { new_client(30) } 1 .. 3;
start_client($primary, $_) foreach @clients;
wait_until('commands there', sub { count_of($standby, q{es_events WHERE data ? 'command'}) > 20 }, 0.01);
$primary->stop('immediate');
$standby->promote;
wait_until('all is answered', sub { look_after($standby, 0, @clients); are_done(@clients) });
# what was answered and did not reach the standby is lost with the primary, so all are repeated
$_->{answered} = 0 foreach @clients;
start_client($standby, $_) foreach @clients;
wait_until('all is answered again', sub { look_after($standby, 0, @clients); are_done(@clients) });
answers_are_kept($standby, 'promoted', @clients);
decisions_are_chained($standby, 'promoted');
states_are_right($standby, 'promoted');
cmp_ok(snapshots_are_right($standby, 'promoted'), '>', 1, 'promoted: snapshots are saved again');
is($standby->safe_psql('postgres', qq{SELECT es_snapshot('account-0', $reducer) = es_stream_version('account-0')}), 't', 'promoted: es_snapshot');
same_without_snapshots($standby, 'promoted');

#
# Dump and restore
#

foreach my $format (qw(custom plain))
{
	states_are_right($standby, "dumped, $format");
	$standby->safe_psql('postgres', qq{SELECT es_snapshot('account-1', $reducer)});
	dump_database($standby, 'postgres', $format, "-F$format");
	create_database($standby, $format, 'public');
	restore_database($standby, $format, $format);
	is(count_of($standby, 'es_snapshots', $format), 0, "$format: snapshots are not dumped");
	is($standby->safe_psql($format, q{SELECT 'account.es_reduce'::regproc::regprocedure, es_reducer('account')}),
		'account.es_reduce(jsonb,es_recorded_event)|account.es_reduce(jsonb,es_recorded_event)', "$format: the schema's reducer is there");
	states_are_right($standby, "$format: restored", $format);
	is(log_digest($standby, $format), log_digest($standby, 'postgres'), "$format: the same log");
	cmp_ok(snapshots_are_right($standby, "$format: restored", $format), '>', 0, "$format: snapshots are saved again");
	is($standby->safe_psql($format, qq{SELECT version - es_stream_version('account-1'), events
			FROM es_execute('account-1', 'account.move'::regproc, '{"amount": 1}', $reducer)}), '1|1', "$format: commands go on");
	same_without_snapshots($standby, "$format: restored", $format);
}

#
# A long stream
#

# Pages that es_state reads, when the session has what it knows of the catalogs.
sub buffers_of
{
	my ($server, $stream) = @_;
	my $read = qq{SELECT * FROM es_state('$stream', 'account.es_reduce'::regproc)};
	my $plan = $server->safe_psql('postgres', qq{
		SET eventstore.snapshot_every = 0;
		$read \\g /dev/null
		EXPLAIN (ANALYZE, BUFFERS, COSTS off, TIMING off, SUMMARY off) $read});

	return sum0(($plan =~ /^[^\n]*\n\s+Buffers: shared (?:hit=(\d+))?(?: read=(\d+))?/ ? ($1 // 0, $2 // 0) : die "no buffers in $plan"));
}

$standby->safe_psql('postgres', q{
	SELECT es_append_batch('account-' || n, 'any', array_fill('moved'::text, ARRAY[n]), array_fill('{"amount": 1}'::jsonb, ARRAY[n]))
	  FROM unnest('{100,100000}'::int[]) AS n;
	VACUUM es_events});
my ($short, $all) = map { buffers_of($standby, $_) } 'account-100', 'account-100000';
cmp_ok($all, '>', 10 * $short, 'without a snapshot a long stream is read');
$standby->safe_psql('postgres', qq{SELECT es_snapshot('account-100000', $reducer); VACUUM es_snapshots});
my $long = buffers_of($standby, 'account-100000');
cmp_ok($long, '<', $short + 30, 'with a snapshot it is not');
$standby->safe_psql('postgres', q{SELECT es_append('account-100000', 'any', 'moved', '{"amount": 1}') FROM generate_series(1, 100)});
my $later = buffers_of($standby, 'account-100000');
cmp_ok($later, '<', $short + 60, 'but what came after it');
is($standby->safe_psql('postgres', qq{SELECT state->'balance', version FROM es_state('account-100000', $reducer)}), '100100|100100',
	'a long stream: its state');
note("pages: $short for 100 events, $all for 100,000, $long with a snapshot, $later with 100 events after it");
is(slurp_file($standby->logfile) =~ /(TRAP|PANIC|segmentation)/i ? $1 : '', '', 'no failure in the log');
$standby->stop;
done_testing();
