# A router and two shards, as databases of one server: what is called through the router does what it does on the
# shard, and fails as it does there.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreCluster;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

need_plproxy();

my $node   = new_store('router', extension => 0);
my @shards = ('shard0', 'shard1');

foreach my $number (0, 1)
{
	$node->safe_psql('postgres', "CREATE DATABASE $shards[$number]");
	$node->safe_psql($shards[$number], sprintf("CREATE EXTENSION eventstore; SELECT es_set_slots('{[%d,%d)}')", $number * 512, $number * 512 + 512));
}
new_router($node, 'router', map { connection_to($node, $_) } @shards);

sub on
{
	my ($database, $query) = @_;

	return scalar $node->safe_psql($database, $query);
}

# The error of statements, with its fields but for CONTEXT.
sub error_of
{
	my ($database, $query, %params) = @_;
	my $error = ($node->psql($database, "\\set VERBOSITY verbose\n$query", on_error_stop => 0, %params))[2];

	$error =~ s/^psql:<stdin>:\d+: //gm;
	return join("\n", grep { /^(ERROR|DETAIL|HINT)/ } split /\n/, $error);
}

# Both databases have their events in their own order.
sub stored
{
	return join(' ', map { on($_, q{SELECT coalesce(string_agg(stream || ':' || version, ',' ORDER BY position), '-') FROM es_events}) } @shards);
}

#
# The map
#
is(on('router', 'SELECT shard, slots FROM es_shards ORDER BY shard'), "0|{[0,512)}\n1|{[512,1024)}", 'two shards have equal parts');
is(on('router', 'SELECT count(*) FROM es_check_shards() WHERE problem IS NOT NULL'), '0', 'the shards agree');
like(error_of('router', q{SELECT es_create_shards(ARRAY['dbname=x'])}), qr/55000: the router has shards/, 'the map is made once');
foreach my $wrong ('postgresql://host/x', 'dbname=x user=me', 'dbname=x password = secret', undef)
{
	my $value = defined $wrong ? "'$wrong'" : 'NULL';

	like(error_of('router', "SELECT es_connect_shard(0, $value)"), qr/22023: a connection must be/, "no connection: $value");
}
like(error_of('router', q{SELECT es_connect_shard(7, 'dbname=x')}), qr/42704: there is no shard 7/, 'no such shard');
like(error_of('router', q{SELECT es_split_shard(0, 2, '{[0,512)}', 'dbname=x', 1)}), qr/22023: a new shard gets a part.*\nDETAIL:  These are \{\[0,512\)\}/, 'a split leaves something');
like(error_of('router', q{SELECT es_split_shard(0, 2, '{[500,520)}', 'dbname=x', 1)}), qr/22023: a new shard gets a part/, 'and takes from its parent alone');
like(error_of('router', q{SELECT es_split_shard(0, 2, '{[256,512)}', 'dbname=x', NULL)}), qr/22023: a new shard gets a part/, 'at a position');
like(error_of('router', sprintf(q{SELECT es_split_shard(0, 2, '{[256,512)}', '%s', 1)}, connection_to($node, 'shard1'))), qr/23505/, 'no two shards have one connection');
like(error_of('router', q{BEGIN; UPDATE es_shards SET slots = '{[0,500)}' WHERE shard = 0; SELECT es_apply_map()}),
	qr/22023: each slot must be.*\nDETAIL:  Wrong are slot 500: 0 shards/, 'no slot is without a shard');
is(on('router', 'SELECT es_connect_shard(1, connection) FROM es_shards WHERE shard = 1'), '', 'a connection can be given again');

#
# Writes go to the shard of their stream
#
# a-1 has slot 591 (shard 1), a-3 is of shard 0
is(on('router', q{SELECT * FROM es_append('a-1', 'none', 'opened', '{"n": 1}', '{"user": "me"}', tags => '{x}', body => '\x0102')}), '1|1', 'an append');
is(on('router', q{SELECT * FROM es_append('a-3', 'none', 'opened')}), '1|1', 'another one');
is(on('router', q{SELECT * FROM es_append_batch('a-3', 1, '[{"type": "one"}, {"type": "two"}]')}), '3|3', 'a batch');
is(on('router', q{SELECT * FROM es_append_batch('a-1', 1, ARRAY['one', 'two'], ARRAY['{}', '{"n": 2}']::jsonb[])}), '3|3', 'a batch of arrays');
is(stored(), 'a-3:1,a-3:2,a-3:3 a-1:1,a-1:2,a-1:3', 'all are where they belong');
is(on('router', 'SELECT count(*) FROM es.es_events'), '0', 'the router has no events');
like(error_of('router', q{SELECT es.es_append('a-1', 'any', 'x')}), qr/ES009/, 'and takes none');

#
# Reads of a stream are the same as there
#
foreach my $call (
	q{es_load('a-1')}, q{es_load('a-1', 1, 1)}, q{es_load_backward('a-1')}, q{es_load('nosuch-1')}, q{es_last_event('a-1', 'one')},
	q{es_last_event('a-1', 'none')}, q{es_stream_version('a-1')}, q{es_state('a-1', 'es_merge')}, q{es_state('a-1', 'es_merge', at_version => 2)},
	q{es_history('a-1', 'es_merge')})
{
	is(on('router', "SELECT x FROM $call x"), on('shard1', "SELECT x FROM $call x"), "the router's $call");
}
is(on('router', q{BEGIN; SELECT count(*) FROM es_load('a-1'); COMMIT}), '3', 'a transaction block may read');

#
# Errors are those of the shard, and do not cost the connection
#
my $backends = q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE datname LIKE 'shard%'};
my $id       = '00000000-0000-4000-8000-000000000001';
foreach my $call (
	q{es_append('a-1', 'none', 'opened')}, q{es_append('a-1', 7, 'opened')}, qq{es_append('a-1', 'any', 'other', id => '$id')},
	q{es_append('', 'any', 'x')}, q{es_append('a-1', 'any', NULL)}, q{es_append_batch('a-1', 'any', '[{}]')}, q{es_append('es_x', 'any', 'x')},
	q{es_append(NULL, 'any', 'x')}, q{es_state('a-1', 'nosuch')}, q{es_execute('a-1', 'nosuch', '{}', 'es_merge')},
	q{es_append('a-1', 'any', 'x', body => NULL, tags => ARRAY[NULL])})
{
	on('shard0', qq{SELECT es_append('a-3', 'any', 'first', id => '$id') WHERE NOT EXISTS (SELECT FROM es_event('$id'))});
	on('shard1', qq{SELECT es_append('a-1', 'any', 'first', id => '$id') WHERE NOT EXISTS (SELECT FROM es_event('$id'))});
	my $there = $call =~ /'a-1'/ ? 'shard1' : on('router', "SELECT es.es_partition('', 1024) < 512") eq 't' ? 'shard0' : 'shard1';
	my $expected = error_of($there, "SELECT $call", extra_params => []);

	like($expected, qr/^ERROR/, "$call fails");
	is(error_of('router', "SELECT $call"), $expected, "$call fails in the same way")
	  unless $call =~ /\('(es_x)?'|NULL, 'any'/;
	like(error_of('router', "SELECT $call"), qr/^ERROR:  \w{5}: (?!.*REMOTE)/, "$call has no prefix");
}
my (undef, $pids) = $node->psql('router', qq{SELECT es_stream_version('a-1') + es_stream_version('a-3') > 0;\n$backends;\nSELECT es_append('a-1', 'none', 'x');\nSELECT es_append('a-3', 'none', 'x');\n$backends}, on_error_stop => 0);
my (undef, @pids) = split /\n/, $pids;
is($pids[0], $pids[1], 'refused appends do not cost a connection');

#
# A write is a statement of its own
#
my $before = stored();
foreach my $statements (
	q{BEGIN; SELECT es_append('a-1', 'any', 'x'); ROLLBACK}, q{DO $$BEGIN PERFORM es_append('a-1', 'any', 'x'); END$$},
	q{BEGIN; SAVEPOINT s; SELECT es_append('a-1', 'any', 'x'); ROLLBACK}, q{CREATE TABLE public.t AS SELECT es_append('a-1', 'any', 'x')},
	q{COPY (SELECT es_append('a-1', 'any', 'x')) TO STDOUT}, q{EXPLAIN ANALYZE SELECT es_append('a-1', 'any', 'x')},
	q{WITH d AS (DELETE FROM es_shards WHERE false RETURNING 1) SELECT es_append('a-1', 'any', 'x')},
	q{SELECT es_append('a-1', 'any', 'x') \; SELECT 1 / 0}, q{SELECT 1 \; SELECT es_append('a-1', 'any', 'x')},
	q{BEGIN; SELECT es_ack(0, 's', 1)}, q{BEGIN; SELECT es_poll(0, 's')})
{
	like(error_of('router', $statements), qr/^ERROR:  25001: es_\w+\(\) on a shard must be a statement of its own\nDETAIL.*\nHINT/, "refused: $statements");
}
is(stored(), $before, 'nothing of that is stored');
is(on('router', q{PREPARE p AS SELECT version FROM es_append('a-3', 'any', 'x'); EXECUTE p}), '5', 'a prepared statement is one');

#
# Commands, messages, queries
#
foreach my $database (@shards)
{
	on($database, q{
		CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
			RETURN jsonb_build_array(jsonb_build_object('type', 'did', 'data', command));
		CREATE FUNCTION decide_on_all(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
			RETURN jsonb_build_array(jsonb_build_object('type', 'did', 'data', command, 'stream', 'c-1'));
		CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
			RETURN ROW(NULL, NULL, 'got', NULL, 'c-1', NULL, NULL)::es_ack_event});
}
is(on('router', q{SELECT version, state, events FROM es_execute('c-1', 'decide', '{"n": 1}', 'es_merge')}), '1|{"n": 1}|1', 'a command');
is(on('router', q{SELECT state, events FROM es_decide('[{"tags": ["stream:c-1"]}]', 'decide_on_all', '{"n": 2}', 'es_merge')}), '{}|1', 'a decision');
is(on('router', q{SELECT es_receive('c-1', 'topic', 'group', '{"n": 3}', 'on_message', message_id => 'm1')}), 'acknowledged', 'a message');
is(on('router', q{SELECT string_agg(type || (data ->> 'n'), ' ' ORDER BY version) FROM es_load('c-1')}), 'did1 did2 got3', 'their events are in the stream');
like(on('router', q{SELECT es_append_if('[{"stream": "q-1", "type": "z", "tags": ["stream:q-1", "b"]}]', '[{"tags": ["stream:q-1", "b"]}]')}), qr/^\(\d+,\d+\)$/, 'an append with a condition');
is(on('router', q{SELECT stream, type, tags FROM es_query('[{"tags": ["stream:q-1"]}]')}), 'q-1|z|{b,stream:q-1}', 'a query by the routing tag');
like(error_of('router', q{SELECT es_append_if('[{"stream": "q-1", "type": "z"}]', '[{"tags": ["stream:q-1", "b"]}]')}), qr/^ERROR:  ES007: /, 'ES007');
like(error_of('router', q{SELECT es_query('[{"tags": ["b"]}]')}), qr/^ERROR:  22023: the query is not of one shard\nDETAIL:  Item 1 has no routing tag\.\nHINT/, 'a query without a routing tag');
like(error_of('router', q{SELECT es_query('[{}]')}), qr/Item 1 has no routing tag/, 'a query of all');
like(error_of('router', q{SELECT es_query('[{"tags": ["stream:a-1"]}, {"tags": ["stream:a-3"]}]')}), qr/22023: the query is not of one shard\nDETAIL:  Item 2 is of slot \d+/, 'a query of two slots');
like(error_of('router', q{SELECT es_query('[{"tags": ["stream:a-1", "stream:a-3"]}]')}), qr/DETAIL:  Item 1 has routing tags of the slots/, 'an item of two slots');

#
# Reads of all shards
#
my $all = join("\n", sort split /\n/, join("\n", map { on($shards[$_], "SELECT $_, position, id FROM es_read()") } 0, 1));
is(join("\n", sort split /\n/, on('router', 'SELECT shard, position, id FROM es_read()')), $all, 'es_read has the events of all shards');
my ($positions, @read) = ('{}');
for (my $rows = 1; $rows > 0;)
{
	my @rows = split /\n/, on('router', "SELECT shard, position, id, positions FROM es_read('$positions', 2)");

	$rows = @rows;
	push @read, map { join('|', (split /\|/)[0 .. 2]) } @rows;
	$positions = (split /\|/, $rows[-1])[3] if $rows;
}
is(join("\n", sort @read), $all, 'page by page, from the positions of the last row, each once');
is($positions, on('router', 'SELECT es_positions()'), 'the last positions are the horizons');
is(on('router', "SELECT count(*) FROM es_read('$positions')"), '0', 'nothing is behind them');
is(on('router', q{SELECT string_agg(DISTINCT stream, ',') FROM es_read_category('a')}), 'a-1,a-3', 'a category');
is(on('router', q{SELECT stream || version FROM es_read_category('a', types => '{two}') ORDER BY 1}), "a-13\na-33", 'types of a category');
like(error_of('router', q{SELECT es_read('{"7": 1}'::jsonb)}), qr/55000: the map is older than the positions\nDETAIL:  It has no shard 7/, 'positions of a newer map');
like(error_of('router', q{SELECT es_read('{"0": -1}'::jsonb)}), qr/22023: each position must be/, 'no position');
like(error_of('router', q{SELECT es_read('[]'::jsonb)}), qr/22023: positions must be an object/, 'no positions');
like(error_of('router', q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT es_read()}), qr/25001: shards must be read/, 'one snapshot');

#
# Subscriptions by shard
#
my $lag = join("\n", map { "$_|2|" . on($shards[$_], 'SELECT count(*) FROM es_events') } 0, 1);
is(on('router', q{SELECT count(es_create_subscription(shard, 's', partitions => 2)) FROM es_shards}), '2', 'a subscription on each shard');
is(on('router', q{SELECT shard, count(*), sum(lag_events) FROM es_subscription_status GROUP BY 1 ORDER BY 1}), $lag, 'the status of all');
my @delivered;
foreach my $shard (0, 1)
{
	for (;;)
	{
		my @rows = split /\n/, on('router', "SELECT token, $shard, position, id FROM es_poll($shard, 's')");
		last unless @rows;
		push @delivered, map { join('|', (split /\|/)[1 .. 3]) } @rows;
		on('router', "SELECT es_ack($shard, 's', $_)") foreach keys %{ { map { (split /\|/)[0] => 1 } @rows } };
	}
}
is(join("\n", sort @delivered), join("\n", sort split /\n/, join("\n", map { on($shards[$_], "SELECT $_, position, id FROM es_read()") } 0, 1)), 'each event is delivered once');
like(error_of('router', q{SELECT es_poll(7, 's')}), qr/42704: there is no shard 7/, 'no such shard');

#
# Who may what
#
on('postgres', 'CREATE ROLE writer LOGIN; CREATE ROLE nobody1 LOGIN');
on($_, q{SELECT es_grant('writer', 'writer')}) foreach @shards;
on('router', 'GRANT USAGE ON SCHEMA es_cluster, es TO writer, nobody1');
is(($node->psql('router', q{SELECT version FROM es_append('r-1', 'none', 'x')}, extra_params => [ '-U', 'writer' ]))[1], '1', 'a writer of the shards writes');
like(error_of('router', q{SELECT * FROM es_load('r-1')}, extra_params => [ '-U', 'writer' ]), qr/^ERROR:  42501: permission denied/, 'and does not read');
like(error_of('router', q{SELECT es_append('r-1', 'any', 'x')}, extra_params => [ '-U', 'nobody1' ]), qr/^ERROR:  42501: permission denied/, 'another role does nothing');
foreach my $call (q{es_connect_shard(0, 'dbname=x')}, q{es_send(0, 'es_slots()', '')}, q{es_apply_map()})
{
	like(error_of('router', "SELECT $call", extra_params => [ '-U', 'writer' ]), qr/^ERROR:  42501: permission denied/, "not $call");
}

#
# A shard that is gone
#
on('postgres', 'ALTER DATABASE shard0 RENAME TO elsewhere');
like(error_of('router', q{SELECT es_append('a-3', 'any', 'x')}), qr/^ERROR:  08006: .*shard0.*\nDETAIL:  The shard has slot \d+\.\nHINT:  Whether/, 'a shard that cannot be reached');
is(on('router', q{SELECT version > 0 FROM es_append('a-1', 'any', 'x')}), 't', 'the other one goes on');
like(on('router', 'SELECT problem FROM es_check_shards() WHERE shard = 0'), qr/shard0/, 'the check says so');
like(error_of('router', 'SELECT es_read()'), qr/^ERROR:  08006: .*\nDETAIL:  One of the shards/, 'and a read of all is an error');
is(on('router', sprintf(q{SELECT es_connect_shard(0, '%s')}, connection_to($node, 'elsewhere'))), '', 'it is reached elsewhere');
is(on('router', q{SELECT version > 0 FROM es_append('a-3', 'any', 'x')}), 't', 'and goes on');
on('elsewhere', q{SELECT es_set_slots('{[0,100)}')});
like(error_of('router', q{SELECT es_append('a-3', 'any', 'x')}), qr/^ERROR:  ES009: .*\nDETAIL:  Its slot.*\nHINT:  The router's map is older/, 'a shard that has other slots');
is(on('router', 'SELECT problem FROM es_check_shards() WHERE shard = 0'), 'it has the slots {[0,100)}', 'the check says so');
on('elsewhere', q{SELECT es_set_slots('{[0,512)}')});

#
# What is generated agrees with eventstore
#
is(on('router', q{
	SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
	  FROM pg_proc p
	 WHERE p.pronamespace = 'es_cluster'::regnamespace AND p.prosrc = 'es_route'
	   AND NOT EXISTS (SELECT FROM pg_proc e WHERE e.pronamespace = 'es'::regnamespace AND e.proname = p.proname
	                      AND pg_get_function_result(e.oid) = pg_get_function_result(p.oid)
	                      AND pg_get_function_arguments(e.oid) = regexp_replace(pg_get_function_arguments(p.oid), '^(shard integer|routing_stream text)(, )?', ''))}),
	'', 'arguments, defaults and results are those of eventstore');
is(on('router', q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'es_cluster'::regnamespace AND prosrc = 'es_route'}), '23', 'so many are routed');
is(on('router', q{SELECT count(*) FROM pg_proc p WHERE pronamespace = 'es_cluster'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL}), '0', 'each has a comment');

my $reference = slurp_file("$FindBin::RealBin/../../doc/reference/cluster.md");
is(join(' ', grep { $reference !~ /\b$_\b/ } split /\n/, on('router', q{SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'es_cluster'::regnamespace AND obj_description(oid, 'pg_proc') NOT LIKE 'part of %'})),
	'', 'each that is not a part of another one is in the reference');

#
# The router's dump
#
my $dump = $node->backup_dir . '.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('router'), '-f', $dump ], 'the router is dumped');
on('postgres', 'CREATE DATABASE again');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('again'), '-f', $dump ], 'and restored');
is(on('again', q{SELECT es_cluster.es_stream_version('a-1') > 0}), 't', 'it is a router');
like(error_of('again', q{SELECT es.es_append('a-1', 'any', 'x')}), qr/ES009/, 'and takes no events itself');
$node->stop;
done_testing();
