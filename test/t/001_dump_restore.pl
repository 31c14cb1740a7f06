# A dump restored into another cluster is the same store: the same log, and
# appends, retries and readers go on.  The dumped next_xids are transaction ids of
# another cluster and say nothing here.  The transaction ids of the new cluster
# are once far below them, once far above, and once they pass them.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Databases: "near" has next_xids a few thousand above the transaction ids of a new
# cluster; "far" is in a schema of its own, and half of its next_xids are three
# epochs above.
my %schema = (near => 'public', far => 'Event Store');
my $source = new_store('source', extension => 0);
my %expected;

# A retry of this must give the first result everywhere.
my $first_append = q{SELECT * FROM es_append('retry-1', 'none', 'asked',
	'{"n": 1}', NULL, '11111111-2222-8333-8444-555555555555')};
my $first_batch = q{SELECT * FROM es_append_batch('retry-2', 'none',
	'[{"type": "asked", "id": "21111111-2222-8333-8444-555555555555"},
	  {"type": "answered", "id": "22111111-2222-8333-8444-555555555555"}]')};

sub fill
{
	my ($node, $database) = @_;

	$node->safe_psql($database, <<'END');
CREATE PROCEDURE append_some(first int, last int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN first .. last LOOP
		PERFORM es_append('account-' || i % 17, 'any', 'moved', jsonb_build_object('n', i));
		IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END $$;
CALL append_some(1, 300);

SELECT es_append_batch('batch-' || i, 'none',
	ARRAY['one', 'two', 'three'], ARRAY['{"n": 1}', '[2]', 'null']::jsonb[],
	ARRAY['{"user": "x"}', NULL, '{}']::jsonb[])
FROM generate_series(1, 20) AS i;
SELECT es_append_batch('batch-21', 'any', '[
	{"type": "one", "occurred_at": "1999-12-31T23:59:59.999999Z"},
	{"type": "two", "metadata": {"a": [1, {"b": null}]}, "data": {"x": 1e400}}]');

-- names and values that are hard to quote
SELECT es_append(stream, 'any', type, to_jsonb(stream), jsonb_build_object(type, stream))
FROM (VALUES
	(E'stra\u00dfe-\U0001F600', E'\u00fcbermittelt'),
	(E'tab\there-1', E'line\nbreak'),
	(E'back\\slash\\N-1', E'\\.'),
	(E'quote''s "and" $$dollar$$-1', E'a,b;c|d'),
	(E'\u202eright to left-1', ' '),
	('no dash', '-')) AS names (stream, type);
SELECT es_append('large-1', 'any', 'attached', to_jsonb(string_agg(md5(i::text), '')))
FROM generate_series(1, 5000) AS i;
SELECT es_append('time-1', 'any', 'seen', occurred_at => t)
FROM unnest(ARRAY['4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999', NULL]::timestamptz[]) AS t;

INSERT INTO es_import (stream, type, data, metadata, id, occurred_at)
SELECT 'import-' || i % 40, 'imported', jsonb_build_object('n', i), NULL, md5(i::text)::uuid, to_timestamp(i)
FROM generate_series(1, 400) AS i;
COPY es_import (stream, type, data) FROM STDIN;
copied-1	copied	{"tab": "\\t"}
copied-2	copied	[]
\.
END
	return;
}

# Position and version of the last event of one stream, after an append to it.
sub appends_go_on
{
	my ($node, $database, $name) = @_;
	my ($last, $version) = split /\|/, $node->safe_psql($database,
		q{SELECT max(position), es_stream_version('account-1') FROM es_events});
	my $new = $node->safe_psql($database,
		qq{SELECT version = $version + 1, position > $last
		     FROM es_append('account-1', $version, 'moved')});

	is($new, 't|t', "$name: the next append has the next version and a higher position");
	like(
		($node->psql($database, qq{\\set VERBOSITY verbose
			SELECT es_append('account-1', $version, 'moved')}))[2],
		qr/ERROR:  ES001:/, "$name: a stale version is refused");
	return;
}

# One append is in flight while a later one commits: a reader waits for it.
sub reads_in_order
{
	my ($node, $database, $name) = @_;
	my $last = $node->safe_psql($database, 'SELECT max(position) FROM es_events');
	my $tail = qq{SELECT string_agg(stream, ',' ORDER BY position) FROM es_read($last, 100)};
	my $session = $node->background_psql($database);

	$session->query_safe('BEGIN');
	$session->query_safe(q{SELECT es_append('slow-1', 'any', 'began')});
	$node->safe_psql($database, q{SELECT es_append('quick-1', 'any', 'done')});
	is($node->safe_psql($database, $tail), '', "$name: a reader does not pass an append in flight");
	$session->query_safe('COMMIT');
	is($node->safe_psql($database, $tail), 'slow-1,quick-1', "$name: then it gets both, in order");
	$session->quit;
	return;
}

sub is_same_store
{
	my ($node, $database, $name) = @_;
	my $expected = $expected{$database};

	is(log_digest($node, $database), $expected->{digest}, "$name: the same log");
	is($node->safe_psql($database, 'SELECT count(*) FROM es_events WHERE next_xid::text::bigint > ' . next_xid($node)),
		'0', "$name: no next_xid is above the next transaction id");
	is($node->safe_psql($database, 'SELECT es_horizon() = max(position) FROM es_events'),
		't', "$name: the horizon is the last position");
	is($node->safe_psql($database, 'SELECT count(*) = (SELECT count(*) FROM es_events) FROM es_read()'),
		't', "$name: a reader gets everything");
	is($node->safe_psql($database, $first_append), $expected->{append}, "$name: retry of an append");
	is($node->safe_psql($database, $first_batch), $expected->{batch}, "$name: retry of a batch");
	appends_go_on($node, $database, $name);
	reads_in_order($node, $database, $name);
	return;
}

# The dump is made while a position is drawn and not committed.
sub dump_store
{
	my ($database) = @_;
	my $session = $source->background_psql($database);

	$session->query_safe('BEGIN');
	$session->query_safe(q{SELECT es_append('flight-1', 'any', 'lost')});
	$source->safe_psql($database, q{SELECT es_append('account-2', 'any', 'last of the dump')});
	$expected{$database}{digest} = log_digest($source, $database);
	$expected{$database}{next_xid} = $source->safe_psql($database,
		'SELECT max(next_xid::text::bigint) FROM es_events');
	dump_database($source, $database, "$database.custom", '-Fc');
	dump_database($source, $database, "$database.plain", '-Fp');
	$session->query_safe('COMMIT');
	$session->quit;
	is($source->safe_psql($database, 'SELECT es_horizon() = max(position) FROM es_events'),
		't', "the dumped store goes on: $database");
	return;
}

sub next_xid
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())');
}

sub restore
{
	my ($node, $database, $format, @options) = @_;

	create_database($node, $database, qq{"$schema{$database}"});
	restore_database($node, $database, "$database.$format", @options);
	return;
}

foreach my $database (qw(near far))
{
	create_database($source, $database, qq{"$schema{$database}"});
	$source->safe_psql($database, qq{CREATE SCHEMA IF NOT EXISTS "$schema{$database}"});
	$source->safe_psql($database, 'CREATE EXTENSION eventstore');
	$expected{$database} = {
		append => $source->safe_psql($database, $first_append),
		batch  => $source->safe_psql($database, $first_batch)
	};
}
burn_xids($source, 3000);
fill($source, 'near');
fill($source, 'far');
burn_xids($source, 1000);
$source->safe_psql($_, 'CALL append_some(301, 400)') foreach qw(near far);
dump_store('near');
$source->stop;
PostgreSQL::Test::Utils::system_or_bail('pg_resetwal', '-e', '3', '-D', $source->data_dir);
$source->start;
$source->safe_psql('far', 'CALL append_some(401, 500)');
is($source->safe_psql('far', q{SELECT count(*) > 50 FROM es_events WHERE next_xid > '12884901888'::xid8}),
	't', 'half of the next_xids are far above those of a new cluster');
dump_store('far');
$source->stop;

# A cluster that is behind: all next_xids are above its next transaction id.
my $behind = new_store('behind', extension => 0);
cmp_ok(next_xid($behind), '<', 3000, 'a cluster with low transaction ids');
restore($behind, 'near', 'custom');
restore($behind, 'far', 'plain');
is_same_store($behind, 'near', 'near, behind');
is_same_store($behind, 'far', 'far, behind');

# A cluster that is ahead of all next_xids.
my $ahead = new_store('ahead', extension => 0);
$ahead->stop;
PostgreSQL::Test::Utils::system_or_bail('pg_resetwal', '-e', '7', '-D', $ahead->data_dir);
$ahead->start;
restore($ahead, 'near', 'plain');
restore($ahead, 'far', 'custom');
is_same_store($ahead, 'near', 'near, ahead');
is_same_store($ahead, 'far', 'far, ahead');
$ahead->stop;

# The transaction ids of a new cluster pass the dumped next_xids, in small steps or
# at once, with an append in flight all the time.
sub passes_next_xids
{
	my ($node, $count, $name) = @_;
	my $last = $node->safe_psql('near', 'SELECT max(position) FROM es_events');
	my $read = "SELECT string_agg(stream, ',' ORDER BY position) FROM es_read($last)";
	my $session = $node->background_psql('near');
	my $in_flight;

	$session->query_safe('BEGIN');
	$session->query_safe(q{SELECT es_append('slow-1', 'any', 'began')});
	burn_xids($node, $count);
	$node->safe_psql('near', q{SELECT es_append('quick-1', 'any', 'done')});
	$in_flight = $node->safe_psql('near', $read);
	cmp_ok($node->safe_psql('near', 'SELECT es_horizon()'), '>=', $last,
		"$name: the horizon does not fall back");
	$session->query_safe('COMMIT');
	$session->quit;
	is($in_flight . '/' . $node->safe_psql('near', $read), '/slow-1,quick-1',
		"$name: a reader waits for the append in flight, then gets both");
	is($node->safe_psql('near', 'SELECT es_horizon() = max(position) FROM es_events'),
		't', "$name: then the horizon is the last position");
	return;
}

my $passing = new_store('passing', extension => 0);
restore($passing, 'near', 'custom');
for (my $step = 1; next_xid($passing) <= $expected{near}{next_xid}; $step++)
{
	passes_next_xids($passing, 1000, "step $step of 1,000 transaction ids");
}

my $leaping = new_store('leaping', extension => 0);
$leaping->safe_psql('template1', 'CREATE EXTENSION eventstore');
restore($leaping, 'near', 'custom', '--data-only');
is(log_digest($leaping, 'near'), $expected{near}{digest}, 'data only: the same log');
passes_next_xids($leaping, 7000, 'step of 7,000 transaction ids');
cmp_ok(next_xid($leaping), '>', $expected{near}{next_xid}, 'which is above all next_xids');

$_->stop foreach ($behind, $passing, $leaping);
done_testing();
