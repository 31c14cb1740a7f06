# Subscriptions go on where they were after a dump is restored: with events parked, to be
# retried, expired and settled.  A token from before is void: the restored store is another
# incarnation.  What was in flight is delivered again.  The last dump is made while consumers
# are at work.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStoreProjections;
use EventStoreSubscriptions;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = PostgreSQL::Test::Utils::tempdir();
my $hostile = q{"it's ""$$ %s; DROP TABLE x; --"};

# Databases, and where everything is found in them.
my %search_path = (plain => 'public', elsewhere => "app, $hostile");
my $source = new_store('source', fsync => 'off', extension => 0);

use_seed();
my $target = new_store('target', fsync => 'off', extension => 0);

# Consumers know their tokens, also after the restore.
sub create_all
{
	my ($node, $database) = @_;

	$node->safe_psql($database, <<'END');
CREATE TABLE known (name text, token bigint);
CREATE FUNCTION settled(call text, name_ text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format(call, (SELECT token FROM known WHERE name = name_)) INTO result;
	RETURN result;
EXCEPTION WHEN SQLSTATE 'ES006' THEN
	RETURN 'void';
END $$;
SELECT es_append_batch(c || i, 'any', array_fill('x'::text, ARRAY[4]), array_fill('{}'::jsonb, ARRAY[4]))
  FROM unnest('{a-,b-}'::text[]) AS c, generate_series(1, 5) AS i;
SELECT es_append('c-1', 'any', 'y') FROM generate_series(1, 3);

SELECT es_create_subscription('new', 'a');
SELECT es_create_subscription('done');
SELECT es_ack('done', max(token)) FROM es_poll('done');
SELECT es_create_subscription('from here', NULL, '{x,y}', 9, 3);
SELECT es_create_subscription('not wanted', 'nothing');
SELECT count(*) FROM es_poll('not wanted');

-- in flight, of a consumer with a name, a part of it acknowledged
SELECT es_create_subscription('in flight', lease => '2 hours');
INSERT INTO known SELECT 'in flight', max(token) FROM es_poll('in flight', 'Ann "A"', 8);
SELECT es_ack('in flight', token, 3) FROM known WHERE name = 'in flight';

-- polled ahead, twice, by one without a name; skipped, parked, to be retried
SELECT es_create_subscription('ahead', lease => '1 hour', max_attempts => 3);
INSERT INTO known SELECT 'ahead 1', max(token) FROM es_poll('ahead', max_count => 9);
INSERT INTO known SELECT 'ahead 2', max(token) FROM es_poll('ahead', NULL, 9, after_token => (SELECT token FROM known WHERE name = 'ahead 1'));
SELECT es_nack('ahead', token, 2, 'skipped', 'skip') FROM known WHERE name = 'ahead 1';
SELECT es_nack('ahead', token, 6, 'parked', 'park') FROM known WHERE name = 'ahead 1';
SELECT es_nack('ahead', token, 10, E'to be\nretried') FROM known WHERE name = 'ahead 2';

-- expired, more than once
SELECT es_create_subscription('expired', lease => '1 hour', max_attempts => 5);
SELECT count(*) FROM es_poll('expired', 'ben', 16);
SELECT count(*) FROM es_poll('expired', 'ben', 16);
SELECT count(*) FROM es_poll('expired', 'ben', 16);

-- a parked stream in flight; and partitions, some of them in flight
SELECT es_create_subscription('stream', 'b', lease => '1 hour');
SELECT es_nack('stream', max(token), 22, 'no', 'park') FROM es_poll('stream', 'cora', 12);
SELECT es_ack('stream', token) FROM es_partitions WHERE subscription = 'stream';
SELECT es_retry(min(id)) FROM es_failures WHERE subscription = 'stream';
INSERT INTO known SELECT 'stream', max(token) FROM es_poll('stream', 'cora');
SELECT es_create_subscription('partitions', partitions => 5, lease => '1 hour');
SELECT count(*) FROM es_poll('partitions', 'ann');
SELECT es_nack('partitions', max(token), min(position), 'no', 'park') FROM es_poll('partitions', 'ben');
SELECT es_ack('partitions', max(token)) FROM es_poll('partitions', 'cora', 2);
SELECT pg_sleep(0.2);
END
	return;
}

# What must be the same after the restore.
sub state_of
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, q{
		SET timezone = 'UTC';
		SELECT s::text FROM es_subscriptions AS s ORDER BY name;
		SELECT p::text FROM es_partitions AS p ORDER BY subscription, partition;
		SELECT f::text FROM es_failures AS f ORDER BY id;
		SELECT subscription, partition, consumer, position, horizon, lag_events, lag_seconds > 0, in_flight, parked,
		       lease_left > '50 minutes' FROM es_subscription_status ORDER BY subscription, partition});
}

# Everybody goes on: with what they know, and until nothing is left.  Returns what they
# got.
sub goes_on
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, <<'END', timeout => 60);
CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, subscription text, consumer text, token bigint, partition int,
	attempt int, stream text, version bigint);
SELECT 'in flight', settled('SELECT es_ack(''in flight'', %s, 5)', 'in flight');
SELECT 'in flight', settled('SELECT es_ack(''in flight'', %s)', 'in flight');
SELECT 'in flight', settled('SELECT es_ack(''in flight'', %s)', 'in flight');
SELECT 'stream', settled('SELECT es_ack(''stream'', %s)', 'stream');
SELECT 'ahead', settled('SELECT string_agg(format(''%%s %%s %%s'', position, version, attempt), '', '') FROM es_poll(''ahead'', NULL, 100, after_token => %s)', 'ahead 2');
SELECT 'ahead', settled('SELECT es_ack(''ahead'', %s)', 'ahead 1');
SELECT 'ahead', settled('SELECT es_nack(''ahead'', %s, 16, ''no'', ''park'')', 'ahead 2');
SELECT 'ahead', settled('SELECT es_ack(''ahead'', %s)', 'ahead 2');
SELECT es_append(s, 'any', 'x') FROM unnest('{a-1,a-4,b-2,d-1}'::text[]) AS s;
SELECT count(es_retry(id)) FROM (SELECT min(id) AS id FROM es_failures WHERE message IS NOT NULL GROUP BY subscription, stream) AS f;
UPDATE es_partitions SET consumer = 'gone' WHERE consumer IS NULL AND leased_until IS NOT NULL;
DO $$
DECLARE
	pair record;
	mine bigint;
	again boolean := true;
BEGIN
	WHILE again LOOP
		again := false;
		FOR pair IN SELECT name, consumer FROM es_subscriptions,
			unnest('{"Ann \"A\"",ann,ben,cora,"gone"}'::text[]) AS consumer ORDER BY 1, 2
		LOOP
			INSERT INTO seen (subscription, consumer, token, partition, attempt, stream, version)
				SELECT pair.name, pair.consumer, token, partition, attempt, stream, version
				  FROM es_poll(pair.name, pair.consumer, 7);
			IF FOUND THEN
				SELECT token INTO mine FROM seen ORDER BY n DESC LIMIT 1;
				PERFORM es_ack(pair.name, mine);
				again := true;
			END IF;
		END LOOP;
	END LOOP;
END $$;
SELECT n, subscription, consumer, partition, attempt, stream, version FROM seen ORDER BY n;
SELECT subscription, partition, position, horizon, lag_events, in_flight, parked FROM es_subscription_status ORDER BY 1, 2;
SELECT count(*) FROM es_failures;
DROP TABLE seen;
END
}

sub restore
{
	my ($node, $database, $file, @options) = @_;

	create_database($node, $database, $search_path{ $file =~ /^elsewhere/ ? 'elsewhere' : 'plain' });
	restore_database($node, $database, $file, @options);
	return;
}

my $again;

# All copies go on in the same way: every token is void, and in the end nothing is left.
sub goes_on_again
{
	my ($node, $database) = @_;
	my $result = goes_on($node, $database);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$again //= $result;
	is($result, $again, "$database: it goes on as the others do");
	is(join(' ', $result =~ /^(?:in flight|stream|ahead)\|(\w*)$/mg), 'void void void void void void void void',
		"$database: no token is accepted");
	is(join(' ', $result =~ /^(?:ahead|done|expired|from here|in flight|new|not wanted|partitions|stream)\|\d\|(\d+)\|\1\|0\|0\|0$/mg)
		=~ s/\d+/1/gr, join(' ', (1) x 15), "$database: and nothing is left") or diag($result);
	return;
}

my (%state, %result);

foreach my $database (sort keys %search_path)
{
	create_database($source, $database, $search_path{$database});
	$source->safe_psql($database, "CREATE SCHEMA app; CREATE SCHEMA $hostile") if $database eq 'elsewhere';
	$source->safe_psql($database, 'CREATE EXTENSION eventstore' . ($database eq 'elsewhere' ? " SCHEMA $hostile" : ''));
	create_all($source, $database);
	dump_database($source, $database, "$database.custom", '-Fc');
	dump_database($source, $database, "$database.plain", '-Fp');
	dump_database($source, $database, "$database.directory", '-Fd', '-j', '2');
	dump_database($source, $database, "$database.inserts.plain", '-Fp', '--column-inserts', '--quote-all-identifiers');
	$state{$database} = state_of($source, $database);
	is($source->safe_psql($database, q{SELECT count(*), count(consumer), count(leased_until), count(stream),
			count(*) FILTER (WHERE settled <> '{}'), count(*) FILTER (WHERE expired_times = '{1,2}' OR expired_times = '{2,1}'),
			count(*) FILTER (WHERE cardinality(tokens) > 1) FROM es_partitions}),
		'15|5|6|1|2|1|1', "$database: all kinds of states") or diag($state{$database});
	$result{$database} = goes_on($source, $database);
	like($result{$database}, qr/\|b-1\|/, "$database: it goes on");
}
is($result{elsewhere}, $result{plain}, 'it is the same in both');

foreach my $database (sort keys %search_path)
{
	foreach my $how (
		[ $source, "${database}_again", "$database.plain" ],
		[ $target, "${database}_one", "$database.custom", '--single-transaction' ],
		[ $target, "${database}_jobs", "$database.directory", '-j', '2' ],
		[ $target, "${database}_text", "$database.plain" ],
		[ $target, "${database}_inserts", "$database.inserts.plain" ])
	{
		my ($node, $restored, @options) = @$how;

		restore($node, $restored, @options);
		is(state_of($node, $restored), $state{$database}, "$restored: everything is as before");
		goes_on_again($node, $restored);
	}
}

# Data only, into a database that has everything else.
restore($target, 'parts', 'plain.custom', '--schema-only');
is($target->safe_psql('parts', 'SELECT count(*) FROM es_subscriptions, es_partitions'), '0', 'the schema only: no subscription');
restore_database($target, 'parts', 'plain.custom', '--data-only');
is(state_of($target, 'parts'), $state{plain}, 'data only: everything is as before');
goes_on_again($target, 'parts');

# Where owners are missing
create_database($source, 'owned', 'public');
$source->safe_psql('owned', q{
	CREATE EXTENSION eventstore;
	CREATE ROLE "Ann" LOGIN;
	GRANT SELECT ON es_events TO "Ann";
	GRANT EXECUTE ON FUNCTION es_create_subscription, es_poll, es_ack TO "Ann";
	SELECT es_append('a-1', 'none', 'x');
	SELECT es_append('a-1', 1, 'x');
	SELECT es_create_subscription('ours');
	SET ROLE "Ann";
	SELECT es_create_subscription('of Ann', lease => '1 hour');
	SELECT es_ack('of Ann', token) FROM es_poll('of Ann', 'c', 1)});
my $token = $source->safe_psql('owned', q{SET ROLE "Ann"; SELECT token FROM es_poll('of Ann', 'c', 1)});
dump_database($source, 'owned', 'owned', '-Fc');
restore($target, 'owned', 'owned', '--no-owner', '--no-privileges');
is($target->safe_psql('owned', q{SELECT version FROM es_poll('ours')}), "1\n2", 'of another owner: it goes on');
like(($target->psql('owned', q{SELECT * FROM es_poll('of Ann', 'c')}, extra_params => [ '-v', 'VERBOSITY=verbose' ]))[2],
	qr/ERROR:  42704: the owner of subscription "of Ann" does not exist/, 'the owner is missing: es_poll says so');
is($target->safe_psql('owned', q{SELECT consumer, position, in_flight FROM es_subscription_status WHERE subscription = 'of Ann'}),
	'c|1|1', 'the owner is missing: its status can be read');
$target->safe_psql('owned', q{CREATE ROLE "Ann" LOGIN; GRANT SELECT ON es_events TO "Ann";
	GRANT EXECUTE ON FUNCTION es_poll, es_ack TO "Ann"});
like(($target->psql('owned', qq{SET ROLE "Ann"; SELECT es_ack('of Ann', $token)}, extra_params => [ '-v', 'VERBOSITY=verbose' ]))[2],
	qr/ERROR:  ES006: /, 'the owner is there again: its token is void');
is($target->safe_psql('owned', q{SET ROLE "Ann"; SELECT position FROM es_poll('of Ann', 'c')}),
	"2", 'the owner is there again: what was in flight is delivered again');

#
# A dump while consumers are at work: inside, what was taken and the checkpoint are of
# one moment
#

$source->safe_psql('postgres', q{
	CREATE EXTENSION eventstore;
	CREATE TABLE taken (at bigint GENERATED ALWAYS AS IDENTITY, position bigint, stream text, version bigint);
	SELECT es_create_subscription('inside', partitions => 3, lease => '2s', max_attempts => 1000)});
append_to_file("$folder/connection", $source->connstr('postgres'));
my $appenders = start_appenders($source, clients => 3, seconds => 60, rate => 50);
my @consumers = map { start_consumer(folder => $folder, subscription => 'inside', inside => 1, name => $_) } 'ann', undef;

ok($source->poll_query_until('postgres', 'SELECT count(*) > 1000 FROM taken'), 'they are at work');
dump_database($source, 'postgres', 'busy.custom', '-Fc');
dump_database($source, 'postgres', 'busy.directory', '-Fd', '-j', '2');
end_psql($appenders);
stop_consumers($folder, @consumers);
foreach my $file (qw(busy.custom busy.directory))
{
	my $restored = $file =~ s/\./_/r;

	restore($target, $restored, $file);
	unlink "$folder/connection";
	append_to_file("$folder/connection", $target->connstr($restored));
	@consumers = map { start_consumer(folder => $folder, subscription => 'inside', inside => 1, name => $_) } 'ben', undef;
	ok($target->poll_query_until($restored, q{SELECT bool_and(lag_events = 0 AND in_flight = 0) FROM es_subscription_status}),
		"$restored: consumers go on");
	stop_consumers($folder, @consumers);
	is($target->safe_psql($restored, q{
			SELECT count(*) FROM es_events LEFT JOIN (SELECT position, count(*) AS n FROM taken GROUP BY position) AS t USING (position)
	WHERE n IS DISTINCT FROM 1}),
		'0', "$restored: every event was taken exactly once");
	is($target->safe_psql($restored, q{
			SELECT count(*) FROM (SELECT version, row_number() OVER (PARTITION BY stream ORDER BY at) AS n FROM taken) AS t
			 WHERE version <> n}), '0', "$restored: in the order of its stream");
}

$_->stop foreach $source, $target;
done_testing();
