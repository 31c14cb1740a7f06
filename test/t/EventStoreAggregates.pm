# Accounts on which commands are decided, and what must be true of them.
#
# The decider writes down the balance that it saw, so that the log itself says
# whether every decision was made on the state just before its events.  What a state
# must be is a query over es_events, without any reducer.
package EventStoreAggregates;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use EventStoreTest;

our @EXPORT = qw(
  create_accounts run_pgbench count_of
  decisions_are_chained states_are_right snapshots_are_right same_without_snapshots);

# account.move moves an amount, in so many events as the command says; it refuses by
# chance, as often as the command says.
sub create_accounts
{
	my ($node, $database) = @_;

	$node->safe_psql($database // 'postgres', <<'END');
CREATE SCHEMA account;
CREATE FUNCTION account.apply_moved(state jsonb, data jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql
RETURN jsonb_build_object(
	'balance', coalesce((state->>'balance')::bigint, 0) + (data->>'amount')::bigint,
	'n', coalesce((state->>'n')::bigint, 0) + 1);

CREATE FUNCTION account.move(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	saw bigint := coalesce((state->>'balance')::bigint, 0);
	amount bigint := command->'amount';
	events jsonb := '[]';
BEGIN
	IF random() < coalesce((command->>'refuse')::float8, 0) THEN
		RAISE EXCEPTION 'refused';
	END IF;
	FOR i IN 1 .. coalesce((command->>'parts')::int, 1) LOOP
		events := events || jsonb_build_object('type', 'moved', 'data', jsonb_build_object(
			'saw', saw, 'amount', amount, 'part', i, 'command', command->'k'));
		saw := saw + amount;
	END LOOP;
	RETURN events;
END $$;
SELECT es_reducer('account');
END
	return;
}

# Runs pgbench to its end; each client does so many transactions, and none fails.
#   clients, transactions
#   options  of pgbench
sub run_pgbench
{
	my ($node, $script, $name, %params) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
	my ($out, $err) = ('', '');
	my $all = $params{clients} * $params{transactions};

	append_to_file($file, $script);
	IPC::Run::run(
		[
			'pgbench', '-n', '-c', $params{clients}, '-j', 2, '-t', $params{transactions}, '--random-seed', int rand 2**31,
			@{ $params{options} // [] }, '-f', $file, $node->connstr('postgres')
		],
		'<', '/dev/null', '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($out, qr{actually processed: $all/$all$}m, "$name: none is refused, and none is lost") or diag($err);
	note($1) if $out =~ /^(tps = .*)$/m;
	return;
}

sub count_of
{
	my ($node, $what, $database) = @_;

	return $node->safe_psql($database // 'postgres', "SELECT count(*) FROM $what");
}

# Every decision was made on the state just before its events.
sub decisions_are_chained
{
	my ($node, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_query($node, q{
		SELECT stream, version, saw, balance FROM (
			SELECT stream, version, (data->>'saw')::bigint AS saw,
			       coalesce(sum((data->>'amount')::bigint) OVER (PARTITION BY stream ORDER BY version
			                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS balance
			  FROM es_events WHERE es_category(stream) = 'account') AS e
		 WHERE saw <> balance LIMIT 10},
		'', "$name: each decision saw the balance before its event");
	holds_versions_dense($node, $name);
	return;
}

# All streams of accounts, without a reducer.
my $folds = q{
	SELECT stream, version, max(recorded_at) OVER v AS recorded_at,
	       jsonb_build_object('balance', sum((data->>'amount')::bigint) OVER v, 'n', count(*) OVER v) AS state,
	       version = max(version) OVER (PARTITION BY stream) AS is_last
	  FROM es_events WHERE es_category(stream) = 'account'
	WINDOW v AS (PARTITION BY stream ORDER BY version)};

# es_state of each stream is the sum of its events.
sub states_are_right
{
	my ($node, $name, $database) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql($database // 'postgres', qq{
		SELECT f.stream, f.version, f.state, s.version, s.state
		  FROM ($folds) AS f, es_state(f.stream, 'account.es_reduce'::regproc) AS s
		 WHERE f.is_last AND (f.version, f.state) IS DISTINCT FROM (s.version, s.state) LIMIT 10}),
		'', "$name: es_state is the sum of the events");
	return;
}

# Every snapshot is the sum of the events up to it.  Returns how many there are.
sub snapshots_are_right
{
	my ($node, $name, $database) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql($database // 'postgres', qq{
		SELECT s.stream, s.version, s.state, f.state, s.recorded_at, f.recorded_at
		  FROM es_snapshots AS s LEFT JOIN ($folds) AS f USING (stream, version)
		 WHERE (s.state, s.recorded_at) IS DISTINCT FROM (f.state, f.recorded_at) LIMIT 10}),
		'', "$name: every snapshot is the sum of the events up to it");
	return count_of($node, 'es_snapshots', $database);
}

# States, at the end and in the middle, are the same when there are no snapshots.  The
# snapshots are gone then.
sub same_without_snapshots
{
	my ($node, $name, $database) = @_;
	my $states = q{
		SELECT s.stream, v, (es_state(s.stream, 'account.es_reduce'::regproc, at_version => v)).*
		  FROM (SELECT stream, max(version) AS last FROM es_events WHERE es_category(stream) = 'account' GROUP BY stream) AS s,
		       LATERAL (VALUES (1), (s.last / 3), (s.last / 2 + 1), (s.last), (NULL)) AS v (v)
		 ORDER BY 1, 2;};
	my $with = $node->safe_psql($database // 'postgres', "SET eventstore.snapshot_every = 0; $states");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql($database // 'postgres', "DELETE FROM es_snapshots; SET eventstore.snapshot_every = 0; $states"),
		$with, "$name: the same states without snapshots");
	is(count_of($node, 'es_snapshots', $database), 0, "$name: and none was saved");
	return;
}

1;
