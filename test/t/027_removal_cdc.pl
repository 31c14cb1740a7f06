# Removals in change data capture: a removed event is a DELETE with its position alone, a compaction an UPDATE,
# and a notice an INSERT. On a logical replica with the extension they are applied.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use_seed();
my $node = new_store('publisher', fsync => 'off', streaming => 1, conf => 'wal_level = logical');
$node->safe_psql('postgres', q{
	CREATE FUNCTION total(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
		$$ SELECT jsonb_build_object('n', coalesce((state->>'n')::int, 0) + (event.data->>'n')::int) $$;
	SELECT es_append(stream, 'any', 'added', '{"n": 1}', tags => CASE WHEN stream <> 'truncated-1' THEN ARRAY['all', 't:' || n] END)
	  FROM unnest('{deleted-1,truncated-1,compacted-1}'::text[]) AS stream, generate_series(1, 3) AS n});

sub changes
{
	return $node->safe_psql('postgres', q{
		SELECT regexp_replace(regexp_replace(replace(data, '"', ''), 'id\[uuid\]:''[^'']*''', 'id'), '(version\[bigint\]:\d+).* (stream\[text\]:''[^'']*'' type\[text\]:''[^'']*'').*', '\1 \2')
		  FROM pg_logical_slot_get_changes('slot', NULL, NULL, 'include-xids', 'off') WHERE data LIKE 'table public.es\_events:%'});
}

#
# What a slot gives
#
$node->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('slot', 'test_decoding')});
$node->safe_psql('postgres', 'CREATE PUBLICATION p FOR TABLE es_events, es_removals, es_removed_ids');
my $subscriber = new_store('subscriber', fsync => 'off', conf => 'wal_level = logical');
$subscriber->safe_psql('postgres', q{CREATE SUBSCRIPTION s CONNECTION '} . $node->connstr . q{ dbname=postgres' PUBLICATION p});
$subscriber->wait_for_subscription_sync($node, 's');

$node->safe_psql('postgres', q{SELECT es_delete_stream('deleted-1', 3)});
is(changes(), join("\n",
	q{table public.es_events: INSERT: position[bigint]:10 version[bigint]:4 stream[text]:'deleted-1' type[text]:'es_stream_deleted'},
	map { "table public.es_events: DELETE: position[bigint]:$_" } 1 .. 3), 'a deletion is its notice, and a DELETE of each event by position');
$node->safe_psql('postgres', q{SELECT es_truncate_stream('truncated-1', 3)});
is(changes(), join("\n", map { "table public.es_events: DELETE: position[bigint]:$_" } 4 .. 5), 'a truncation is a DELETE of each event');
$node->safe_psql('postgres', q{SELECT es_compact_stream('compacted-1', 'total(jsonb, es_recorded_event)')});
is(changes(), join("\n",
	q{table public.es_events: UPDATE: position[bigint]:9 version[bigint]:3 stream[text]:'compacted-1' type[text]:'es_compacted'},
	map { "table public.es_events: DELETE: position[bigint]:$_" } 7 .. 8), 'a compaction is an UPDATE of one event, and a DELETE of each other');
$node->safe_psql('postgres', q{SELECT es_append('archived-1', 'none', 'added', '{"n": 1}'); SELECT pg_logical_slot_get_changes('slot', NULL, NULL); SELECT es_archive_stream('archived-1')});
is(changes(), join("\n",
	q{table public.es_events: INSERT: position[bigint]:12 version[bigint]:2 stream[text]:'archived-1' type[text]:'es_stream_archived'},
	'table public.es_events: DELETE: position[bigint]:11'), 'archiving is its notice, and a DELETE');

#
# A logical replica
#
my $log = q{SELECT string_agg(format('%s %s %s %s', position, version, stream, type), ', ' ORDER BY position) FROM es_events};
$node->wait_for_catchup('s');
is($subscriber->safe_psql('postgres', $log), $node->safe_psql('postgres', $log), 'removals were applied to a replica');
is($subscriber->safe_psql('postgres', q{SELECT data->'state'->>'n', tags FROM es_load('compacted-1')}), '3|{all,t:1,t:2,t:3}', 'and a compaction');
my $page = q{SELECT version FROM es_load('truncated-1', 0, 1)};
is($subscriber->safe_psql('postgres', $page), 3, 'a page of a stream begins with the first event that is kept, where es_removals is published');
# Entries of tags do not travel, but follow what is applied.
my $query = q{SELECT string_agg(stream || ' ' || version, ', ') FROM es_query('[{"tags": ["t:1"]}]')};
is($node->safe_psql('postgres', $query), 'compacted-1 3, deleted-1 4', 'a query finds the notices by the tags of removed events');
is($subscriber->safe_psql('postgres', $query), 'compacted-1 3, deleted-1 4', 'and on the replica');
my $entries = q{SELECT string_agg(format('%s %s %s', tag, position, type), ', ' ORDER BY tag, position) FROM es_tags};
is($subscriber->safe_psql('postgres', $entries), $node->safe_psql('postgres', $entries), 'whose entries are those of the publisher');

#
# A filter of rows by stream, which is not in the replica identity
#
$node->safe_psql('postgres', q{CREATE PUBLICATION filtered FOR TABLE es_events WHERE (stream LIKE 'order-%') WITH (publish = 'insert, delete'); SELECT es_append('order-1', 'none', 'added')});
is(($node->psql('postgres', q{\set VERBOSITY sqlstate
	SELECT es_delete_stream('order-1', 1)}))[2] =~ /ERROR:  42P10/ ? 1 : 0, 1, 'a publication of deletions with a filter by stream stops removals');
$node->safe_psql('postgres', 'ALTER TABLE es_events REPLICA IDENTITY USING INDEX es_events_stream_version_key; SELECT pg_logical_slot_get_changes(\'slot\', NULL, NULL)');
$node->safe_psql('postgres', q{SELECT es_delete_stream('order-1', 1)});
like(changes(), qr/DELETE: version\[bigint\]:1 stream\[text\]:'order-1'$/, 'but not if the identity has the stream: then that and the version are in the DELETE');

$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION s');
$subscriber->stop;
$node->stop;
done_testing();
