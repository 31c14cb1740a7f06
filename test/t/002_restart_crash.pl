# Nothing that was acknowledged is lost, nothing is there twice or in part, and
# prepared transactions keep the horizon, over restarts and crashes.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Digest::MD5 qw(md5_hex);
use EventStoreKills;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $clients = 8;
my $actions = 6000;      # of a client in a round, if there were no crash
my $seconds = 1.2;       # until the crash, at most
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store('crash', fsync => 'on');

sub all_positions
{
	return $node->safe_psql('postgres',
		q{SELECT string_agg(position::text, ',' ORDER BY position) FROM es_read()});
}

my %stop = (
	'a restart' => sub { $node->restart },
	'an immediate stop' => sub { $node->stop('immediate'); $node->start },
	'kill -9 of the postmaster' => sub { kill_postmaster($node) });

#
# Prepared transactions
#

# An append is prepared, and a later one is committed.  The committed one has a
# lower transaction id than the prepared one, and its next_xid is above an id that
# is nowhere in the write-ahead log: after a crash the next_xid is above the next
# transaction id, and must hold the horizon all the same.
sub prepare_and_pass
{
	my $before = $node->background_psql('postgres');
	my $idle = $node->background_psql('postgres');

	$before->query_safe('BEGIN; SELECT pg_current_xact_id()');
	$node->safe_psql('postgres',
		q{BEGIN; SELECT es_append('two-1', 'any', 'prepared'); PREPARE TRANSACTION 'first'});
	$idle->query_safe('BEGIN; SELECT pg_current_xact_id()');
	$before->query_safe(q{SELECT es_append('one-1', 'any', 'after')});
	$before->query_safe('COMMIT');
	$before->quit;
	return $idle;
}

sub holds_back
{
	my ($last, $name) = @_;

	is_query($node, 'SELECT es_horizon()', $last, "$name: the horizon is below the prepared append");
	is_query($node, "SELECT count(*) FROM es_read($last)", '0', "$name: a reader does not pass it");
	return;
}

sub is_locked
{
	my ($name) = @_;

	like(
		($node->psql('postgres',
			q{SET lock_timeout = '100ms'; SELECT es_append('two-1', 'any', 'other')}))[2],
		qr/lock timeout/, "$name: its stream is locked");
	is_query($node, q{SET lock_timeout = '5s'; SELECT version > 0 FROM es_append('three-1', 'any', 'other')},
		't', "$name: another stream is not");
	return;
}

foreach my $end ('COMMIT', 'ROLLBACK')
{
	foreach my $how (sort keys %stop)
	{
		my $name = "$how, then $end PREPARED";
		my ($last, $idle);

		$node->safe_psql('postgres', q{SELECT es_append('one-1', 'any', 'before')});
		$last = $node->safe_psql('postgres', 'SELECT max(position) FROM es_events');
		$idle = prepare_and_pass();
		holds_back($last, "before $name");
		$stop{$how}->();
		$idle->quit;
		holds_back($last, $name);
		is_locked($name);
		$node->safe_psql('postgres', "$end PREPARED 'first'");
		holds_horizon_at_end($node, $name);
		is_query($node, "SELECT string_agg(type, ',' ORDER BY position) FROM es_read($last)",
			$end eq 'COMMIT' ? 'prepared,after,other' : 'after,other',
			"$name: a reader gets all that was committed");
	}
}
holds_versions_dense($node, 'prepared transactions');

#
# Crashes during appends from eight clients
#

sub event_json
{
	my ($action, $part, $parts) = @_;

	return qq({"action": "$action", "part": $part, "parts": $parts});
}

sub event_id
{
	my ($action, $part) = @_;
	my $hex = md5_hex("$action-$part");

	return join '-', unpack('A8 A4 A4 A4 A12', $hex);
}

# The statements of one action, and how many events it stores.  Streams are
# locked in alphabetical order.
sub action_sql
{
	my ($client, $number, $action) = @_;
	my @shared = map { "shared-" . ($number + $_) % 5 } 0 .. 2;

	if ($number % 4 == 0)
	{
		return sprintf "SELECT es_append('%s', 'any', 'single', '%s', NULL, '%s');\n",
		  $shared[0], event_json($action, 1, 1), event_id($action, 1);
	}
	elsif ($number % 4 == 1)
	{
		return sprintf "SELECT es_append_batch('own-$client', 'any', '[%s]');\n",
		  join ', ', map {
			sprintf '{"type": "batch", "data": %s, "id": "%s"}',
			  event_json($action, $_, 5), event_id($action, $_)
		  } 1 .. 5;
	}
	elsif ($number % 4 == 2)
	{
		@shared = sort @shared;
		return join '', "BEGIN;\n", (
			map {
				sprintf "SELECT es_append('%s', 'any', 'several', '%s', NULL, '%s');\n",
				  $shared[ $_ - 1 ], event_json($action, $_, 3), event_id($action, $_)
			} 1 .. 3), "COMMIT;\n";
	}
	return sprintf
	  "INSERT INTO es_import (stream, type, data, id) VALUES %s;\n",
	  join ', ', map {
		sprintf "('import-%d-%d', 'import', '%s', '%s')",
		  $client, $_ % 2, event_json($action, $_, 4), event_id($action, $_)
	  } 1 .. 4;
}

# A client says which actions were acknowledged: psql stops at the first error.
sub write_client
{
	my ($file, $client, $round, $first, $last) = @_;

	open my $script, '>', $file or die "$file: $!";
	print $script "SET client_min_messages = error;\n";
	foreach my $number ($first .. $last)
	{
		my $action = "$round-$client-$number";

		print $script action_sql($client, $number, $action), "\\echo done $action\n";
	}
	close $script;
	return;
}

# A reader tails the log in one session and says what it saw.
my $tail = "$folder/tail.sql";
append_to_file($tail, <<'END');
\set VERBOSITY terse
SET client_min_messages = info;
DO $$
DECLARE
	last bigint := current_setting('my.last');
	chunk bigint[];
BEGIN
	LOOP
		SELECT array_agg(position ORDER BY position) INTO chunk FROM es_read(last, 100);
		COMMIT;
		IF chunk IS NULL THEN
			EXIT WHEN current_setting('my.once')::bool;
			PERFORM pg_sleep(0.002);
		ELSE
			RAISE INFO 'seen %', array_to_string(chunk, ',');
			last := chunk[array_upper(chunk, 1)];
		END IF;
	END LOOP;
END $$;
END

# What a reader reports goes through psql to its error output.
sub seen_positions
{
	return map { /INFO: +seen ([0-9,]+)/ ? split(/,/, $1) : () } split /\n/, slurp_file("$folder/tail.err");
}

my @acknowledged;
my @seen = split /,/, all_positions();
my $before_rounds = @seen;

# For some time; no client may come to the end of its actions.
sub let_them_append
{
	foreach (1 .. $seconds / 0.05)
	{
		sleep 0.05;
		return if grep { -s "$folder/client-$_.out" > 6 * $actions } 1 .. $clients;
	}
	return;
}

sub round_ends_in_crash
{
	my ($round, $how) = @_;
	my (@psql, $reader, @sent, %last_done);
	my $name = "round $round ($how)";

	foreach my $client (1 .. $clients)
	{
		write_client("$folder/client-$client.sql", $client, $round, 1, $actions);
	}
	{
		local $ENV{PGOPTIONS} = "-c my.last=$seen[-1] -c my.once=off";
		$reader = start_psql($node, $tail, "$folder/tail");
	}
	@psql = map { start_psql($node, "$folder/client-$_.sql", "$folder/client-$_") } 1 .. $clients;
	let_them_append();
	$stop{$how}->();
	my @ended = map { finish_psql($_) ? 1 : () } @psql, $reader;
	is(scalar(@ended), 0, "$name: it was in the middle of the appends");
	push @seen, seen_positions();

	foreach my $client (1 .. $clients)
	{
		my @done = slurp_file("$folder/client-$client.out") =~ /^done (\S+)$/mg;

		push @acknowledged, @done;
		push @sent, scalar @done;
	}
	is_query($node,
		q{SELECT count(*) FROM (SELECT data->>'action', count(DISTINCT data->>'part') AS stored, count(*) AS n,
		                               min((data->>'parts')::int) AS parts
		                          FROM es_events WHERE data ? 'action' GROUP BY 1) AS action
		   WHERE stored <> parts OR n <> parts},
		'0', "$name: every action is there wholly and once, or not at all");
	holds_horizon_at_end($node, $name);
	holds_versions_dense($node, $name);
	seen_is_a_prefix($name);

	# Every client sends its last two acknowledged actions again, and the one
	# of which it does not know, and goes on.
	foreach my $client (1 .. $clients)
	{
		my $first = $sent[ $client - 1 ] > 2 ? $sent[ $client - 1 ] - 1 : 1;

		write_client("$folder/again-$client.sql", $client, $round, $first, $first + 5);
	}
	@psql = map { start_psql($node, "$folder/again-$_.sql", "$folder/again-$_") } 1 .. $clients;
	is(scalar(grep { finish_psql($_) } @psql), $clients, "$name: all clients send again and go on");
	push @acknowledged, map { slurp_file("$folder/again-$_.out") =~ /^done (\S+)$/mg } 1 .. $clients;
	all_acknowledged_are_there($name);
	holds_versions_dense($node, "$name, later");
	return;
}

# What a reader saw before the crash is the beginning of the log after it.
sub seen_is_a_prefix
{
	my ($name) = @_;

	is_query($node, "SELECT string_agg(position::text, ',' ORDER BY position) FROM es_events WHERE position <= $seen[-1]",
		join(',', @seen), "$name: what a reader saw is there, and nothing new before it");
	return;
}

sub all_acknowledged_are_there
{
	my ($name) = @_;
	my %once = map { $_ => 1 } @acknowledged;
	my $file = "$folder/acknowledged";

	open my $out, '>', $file or die "$file: $!";
	print $out "$_\n" foreach sort keys %once;
	close $out;
	is($node->safe_psql('postgres', qq{
			CREATE TEMPORARY TABLE acknowledged (action text PRIMARY KEY);
			\\copy acknowledged FROM '$file'
			SELECT count(*) FROM acknowledged AS a
			 WHERE (SELECT count(*) = min((data->>'parts')::int) AND count(*) = count(DISTINCT data->>'part')
			          FROM es_events AS e WHERE e.data->>'action' = a.action) IS NOT TRUE}),
		'0', "$name: every acknowledged action is there once");
	return;
}

# The check above looks events up by their action.
$node->safe_psql('postgres', q{CREATE INDEX ON es_events ((data->>'action'))});
my $round = 0;
foreach my $how ('kill -9 of the postmaster', 'an immediate stop', 'kill -9 of the postmaster')
{
	round_ends_in_crash(++$round, $how);
}

# The reader goes on from where it was, and has then seen the log.
{
	local $ENV{PGOPTIONS} = "-c my.last=$seen[-1] -c my.once=on";
	ok(finish_psql(start_psql($node, $tail, "$folder/tail")), 'the reader goes on');
}
push @seen, seen_positions();
seen_is_a_prefix('at the end');
is(join(',', @seen), all_positions(), 'and has seen the whole log, each event once and in order');
diag(sprintf "crashes: %d rounds, %d actions acknowledged, %d events, %d read by the tail",
	$round, scalar(@acknowledged), $node->safe_psql('postgres', 'SELECT count(*) FROM es_events'),
	@seen - $before_rounds);
$node->stop;
done_testing();
