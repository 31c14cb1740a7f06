# es_execute with many at once: no command is lost or refused, each is decided on the
# state just before its events, a repeated one takes effect once, and snapshots that
# are saved meanwhile change nothing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreAggregates;
use EventStoreProjections;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store(
	'execute',
	fsync => 'off',
	conf  => q{
eventstore.snapshot_every = 5
deadlock_timeout = 100ms
});

use_seed();

sub begin
{
	$node->safe_psql('postgres', q{SET client_min_messages = warning; DROP EXTENSION IF EXISTS eventstore CASCADE; DROP SCHEMA IF EXISTS account CASCADE;
		CREATE EXTENSION eventstore});
	create_accounts($node);
	return;
}

sub query { return $node->safe_psql('postgres', $_[0]) }

sub all_is_right
{
	my ($name) = @_;
	my $snapshots;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	decisions_are_chained($node, $name);
	$snapshots = snapshots_are_right($node, $name);
	cmp_ok($snapshots, '>', 0, "$name: there are snapshots");
	states_are_right($node, $name);
	same_without_snapshots($node, $name);
	states_are_right($node, "$name, without snapshots");
	note("$name: " . count_of($node, 'es_events') . " events, $snapshots snapshots");
	return;
}

#
# 32 clients on one stream
#

foreach my $protocol (qw(simple prepared))
{
	begin();
	run_pgbench($node, <<'END', "one stream, $protocol", clients => 32, transactions => 100, options => [ '-M', $protocol ]);
\set amount random(-50, 100)
SELECT * FROM es_execute('account-1', 'account.move'::regproc, jsonb_build_object('amount', :amount::int), 'account.es_reduce'::regproc);
END
	is(query(q{SELECT count(*), max(version) FROM es_events}), '3200|3200', "one stream, $protocol: 3,200 events");
	all_is_right("one stream, $protocol");
}

# At the other isolation level that does not fail by chance; no snapshot is saved there.
{
	local $ENV{PGOPTIONS} = '-c default_transaction_isolation=repeatable\\ read';

	begin();
	run_pgbench($node, <<'END', 'REPEATABLE READ', clients => 16, transactions => 50);
\set amount random(-50, 100)
BEGIN;
SELECT count(*) FROM es_events;
SELECT * FROM es_execute('account-1', 'account.move'::regproc, jsonb_build_object('amount', :amount), 'account.es_reduce'::regproc);
COMMIT;
END
	is(query(q{SELECT count(*), max(version) FROM es_events}), '800|800', 'REPEATABLE READ: 800 events');
	is(count_of($node, 'es_snapshots'), 0, 'REPEATABLE READ: no snapshot is saved');
	decisions_are_chained($node, 'REPEATABLE READ');
	states_are_right($node, 'REPEATABLE READ');
}

#
# 10 streams, with es_append, and deciders that refuse at random
#
# Sessions say which version each command got, or that it was refused; some of them
# catch the error in a subtransaction.
#

begin();
query(q{
	CREATE FUNCTION try(stream text, command jsonb) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		RETURN (SELECT stream || ' ' || version FROM es_execute(stream, 'account.move'::regproc, command, 'account.es_reduce'::regproc));
	EXCEPTION WHEN raise_exception THEN
		RETURN SQLERRM;
	END $$});

my @sessions;

foreach my $number (1 .. 12)
{
	my $script = '\set VERBOSITY terse' . "\n";

	foreach my $time (1 .. 100)
	{
		my ($stream, $amount) = ('account-' . int(rand 10), int(rand 100) - 40);
		my $command = qq{'{"amount": $amount, "refuse": 0.3}'};
		my $execute = "SELECT '$stream ' || version FROM es_execute('$stream', 'account.move'::regproc, $command, 'account.es_reduce'::regproc);\n";

		$script .= (
			$execute,
			"SELECT try('$stream', $command);\n",
			"\\echo begin\nBEGIN;\n$execute" . "ROLLBACK;\n\\echo rolled back\n",
			"SELECT '$stream ' || version FROM es_append('$stream', 'any', 'moved', '{\"amount\": $amount}');\n")[ rand 4 ];
	}
	append_to_file("$folder/mix$number.sql", $script);
}
@sessions = map { start_psql($node, "$folder/mix$_.sql", "$folder/mix$_", '-v', 'ON_ERROR_STOP=0') } 1 .. 12;
$_->finish foreach @sessions;

# What was said before a rollback is void.
my $said = join '', map { slurp_file("$folder/mix$_.out") } 1 .. 12;
my $errors = join '', map { slurp_file("$folder/mix$_.err") } 1 .. 12;
my %got;

$said =~ s/^begin\n(?:account-\d \d+\n)?rolled back$//mg;
$got{$1}++ while $said =~ /^(account-\d \d+)$/mg;
is(join(', ', grep { $got{$_} > 1 } sort keys %got), '', 'a mix: no version was given twice');
is(join("\n", sort keys %got), join("\n", sort split /\n/, query(q{SELECT stream || ' ' || version FROM es_events})),
	'a mix: exactly what was said to be stored is there');
my $refused = () = $errors =~ /ERROR:  refused$/mg;
$errors =~ s/^.*ERROR:  refused\n//mg;
is($errors, '', 'a mix: there are no other errors than refusals');
cmp_ok($refused, '>', 50, 'a mix: there were refusals');
all_is_right('a mix');

#
# Repeated commands
#
# 300 commands of one to three events, each on a stream of its own choice.
#

begin();
query('CREATE TABLE result (k int, version bigint, "position" bigint, state jsonb, events int)');
run_pgbench($node, <<'END', 'repeated', clients => 16, transactions => 100);
\set k random(1, 300)
INSERT INTO result SELECT :k, e.* FROM es_execute('account-' || :k % 5, 'account.move'::regproc,
	jsonb_build_object('k', :k, 'amount', :k - 120, 'parts', 1 + :k % 3), 'account.es_reduce'::regproc,
	jsonb_build_object('command_id', md5(:k::text)::uuid)) AS e;
END
is(query(q{SELECT count(*) FROM result}), 1600, 'repeated: every one had an answer');
is(query(q{
	SELECT r.k, r.n, e.n, r.results, e.dense FROM
		(SELECT k, max(events) AS n, count(DISTINCT (version, "position", state, events)) AS results,
		        max(version) AS version, max(position) AS position FROM result GROUP BY k) AS r
		FULL JOIN (SELECT (data->>'command')::int AS k, count(*) AS n, max(version) AS version, max(position) AS position,
		        array_agg((data->>'part')::int ORDER BY version) = array_agg(i ORDER BY i) AS dense
		        FROM (SELECT *, row_number() OVER (PARTITION BY data->>'command' ORDER BY version)::int AS i FROM es_events) AS e
		        GROUP BY 1) AS e USING (k, version, position)
	 WHERE (r.results, r.n, e.n, e.dense) IS DISTINCT FROM (1, 1 + k % 3, 1 + k % 3, true)}),
	'', 'repeated: each took effect once, and always had its first result');
cmp_ok(query(q{SELECT count(DISTINCT k) FROM result}), '>', 250, 'repeated: nearly all came');
all_is_right('repeated');

#
# Two streams in a transaction, in sorted order
#

begin();
query(q{SELECT es_execute('account-' || i, 'account.move'::regproc, '{"amount": 100}', 'account.es_reduce'::regproc) FROM generate_series(1, 10) AS i});
run_pgbench($node, <<'END', 'two streams', clients => 16, transactions => 60);
\set a random(1, 9)
\set b random(:a + 1, 10)
\set amount random(-30, 30)
BEGIN;
SELECT version FROM es_execute('account-' || lpad(:a::text, 2, '0'), 'account.move'::regproc, jsonb_build_object('amount', :amount), 'account.es_reduce'::regproc);
SELECT version FROM es_execute('account-' || lpad(:b::text, 2, '0'), 'account.move'::regproc, jsonb_build_object('amount', - :amount), 'account.es_reduce'::regproc);
COMMIT;
END
is(query(q{SELECT count(*), sum((data->>'amount')::int) FROM es_events}), (10 + 2 * 16 * 60) . '|1000', 'two streams: nothing is lost');
is(slurp_file($node->logfile) =~ /(deadlock detected)/ ? $1 : '', '', 'two streams: no deadlock');
all_is_right('two streams');

#
# 4 writers of 100 events each with 'any'
#

foreach my $every (0, 5)
{
	begin();
	run_pgbench($node, <<"END", '4 writers', clients => 4, transactions => 100);
\\set amount random(1, 100)
SELECT es_append('account-1', 'any', 'moved', jsonb_build_object('amount', :amount));
END
	is(query('SELECT count(*), max(version) FROM es_events'), '400|400', '4 writers: 400 events');
	is(query(qq{SET eventstore.snapshot_every = $every;
		SELECT version, (state->>'balance')::int = (SELECT sum((data->>'amount')::int) FROM es_events)
		  FROM es_state('account-1', 'account.es_reduce'::regproc)}), '400|t', '4 writers: and their state');
	is(count_of($node, 'es_snapshots'), $every == 0 ? 0 : 1, "4 writers: snapshots with snapshot_every = $every");
}

is(slurp_file($node->logfile) =~ /(TRAP|PANIC|segmentation)/i ? $1 : '', '', 'no failure in the log');
$node->stop;
done_testing();
