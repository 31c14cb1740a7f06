-- es_archive_stream, es_archive, es_unarchive_stream: what is moved, what is read where, what is appended,
-- retried, archived again, truncated and deleted after it.
CREATE EXTENSION eventstore;
CREATE VIEW log AS SELECT position, stream, version, type, data, tags FROM es_events;
CREATE VIEW archive AS SELECT position, stream, version, type, data, tags FROM es_archived_events;
CREATE FUNCTION counted(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE
    RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1, 'last', event.type);
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN command;
SELECT version, position FROM es_append('order-1', 'none', 'placed', '{"n": 1}', '{"user": 1}', '00000000-0000-0000-0000-000000000001', '2026-01-01 00:00:00Z', tags => '{customer:1,order:1}', body => '\x01');
SELECT version, position FROM es_append('order-2', 'none', 'placed', '{"n": 2}');
SELECT version, position FROM es_append('order-1', 1, 'paid', '{"n": 3}', NULL, '00000000-0000-0000-0000-000000000002', tags => '{order:1}');

-- Refused, and nothing is stored.
SELECT es_archive_stream(NULL);
SELECT es_archive_stream('');
SELECT es_archive_stream('es_x-1');
SELECT es_archive_stream('order-1', '[]');
SELECT es_unarchive_stream(NULL);
SELECT es_archive(NULL, '1 day');
SELECT es_archive('order', NULL);
SELECT es_archive('order-1', '1 day');
SELECT es_archive('order', '-1 day');
SELECT es_archive('order', '1 day', 0);
BEGIN READ ONLY;
SELECT es_archive_stream('order-1');
ROLLBACK;
BEGIN READ ONLY;
SELECT es_archive('order', '0');
ROLLBACK;
BEGIN READ ONLY;
SELECT es_unarchive_stream('order-1');
ROLLBACK;
-- Streams without events.
SELECT * FROM es_archive_stream('order-9');
SELECT es_unarchive_stream('order-9'), es_unarchive_stream('order-1');
SELECT count(*) FROM es_removals;
-- A rollback leaves nothing.
BEGIN;
SELECT * FROM es_archive_stream('order-1');
ROLLBACK;
SELECT count(*) FROM archive;
SELECT count(*) FROM es_removals;

SELECT * FROM es_archive_stream('order-1', '{"why": "done"}');
SELECT * FROM log ORDER BY position;
SELECT metadata FROM es_last_event('order-1');
SELECT * FROM archive ORDER BY position;
SELECT next_xid IS NULL AS no_next_xid, occurred_at AT TIME ZONE 'UTC' AS occurred_at, id, metadata, body FROM es_archived_events ORDER BY position;
SELECT tag, position, type FROM es_tags ORDER BY 1, 2;
SELECT action, stream, position, positions, versions, removed, removed_by = current_user AS by_us, metadata FROM es_removals ORDER BY id;
SELECT id, stream, version, position FROM es_removed_ids ORDER BY id;
-- Again: the first result.
SELECT * FROM es_archive_stream('order-1');

-- Reads are explicit.
SELECT version, type FROM es_load('order-1');
SELECT version, type, data, tags FROM es_load_archived('order-1');
SELECT version, type FROM es_load_archived('order-1', 1);
SELECT version, type FROM es_load_archived('order-1', 0, 1);
SELECT version, type FROM es_load_archived('order-1', NULL, NULL);
SELECT version, type FROM es_load_archived('order-1', 5, 1);
SELECT count(*) FROM es_load_archived('order-1', 0, 0);
SELECT count(*) FROM es_load_archived('order-1', 0, -1);
SELECT count(*) FROM es_load_archived('order-1', 9223372036854775807, 9223372036854775807);
SELECT count(*) FROM es_load_archived('order-2');
SELECT position, stream, version, type, archived FROM es_all_events ORDER BY position;
-- The indexes serve all of them.
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM es_load_archived('order-1');
EXPLAIN (COSTS OFF) SELECT * FROM es_all_events WHERE position > 100 ORDER BY position LIMIT 10;
EXPLAIN (COSTS OFF) SELECT * FROM es_all_events WHERE stream = 'order-1' ORDER BY version;
RESET enable_seqscan;
RESET enable_bitmapscan;
-- A fold needs the events.
SELECT es_state('order-1', 'counted');
-- Conditions meet the notice.
SELECT * FROM es_append_if('[{"stream": "x-1", "type": "t"}]', '[{"tags": ["customer:1"], "types": ["placed"]}]', 3);

-- Retries are known; the ids are not free.
SELECT version, position FROM es_append('order-1', 'none', 'placed', '{"n": 1}', id => '00000000-0000-0000-0000-000000000001');
SELECT version, position FROM es_append('order-2', 'any', 'placed', id => '00000000-0000-0000-0000-000000000001');

-- Versions go on, and it is archived again.
SELECT version FROM es_append('order-1', 'none', 'returned');
SELECT version FROM es_append('order-1', 3, 'returned');
SELECT version FROM es_append('order-1', 'exists', 'refunded');
SELECT * FROM es_archive_stream('order-1');
SELECT stream, version, type, data, tags FROM log ORDER BY position;
SELECT version, type FROM es_load_archived('order-1');
SELECT version, type FROM es_load_archived('order-1', 1, 3);

-- The way back: all events at their places, the notices among them.
SELECT es_unarchive_stream('order-1');
SELECT es_unarchive_stream('order-1');
SELECT count(*) FROM archive;
SELECT position, version, type, data, tags FROM log WHERE stream = 'order-1' ORDER BY position;
SELECT version, next_xid IS NOT NULL AS next_xid, occurred_at AT TIME ZONE 'UTC' AS occurred_at, id, metadata, body FROM es_events WHERE stream = 'order-1' AND version < 3 ORDER BY version;
SELECT tag, position, type FROM es_tags ORDER BY 1, 2;
SELECT count(*) FROM es_removed_ids;
SELECT action, stream, position, positions, versions, removed, metadata FROM es_removals ORDER BY id;
SELECT es_state('order-1', 'counted');
SELECT version, position FROM es_append('order-1', 'none', 'placed', '{"n": 1}', '{"user": 1}', '00000000-0000-0000-0000-000000000001', '2026-01-01 00:00:00Z', tags => '{customer:1,order:1}', body => '\x01');
SELECT version, position FROM es_append('order-1', 6, 'closed');
-- A state of a query that was saved without the archived events is not used when they are back.
SET eventstore.snapshot_every = 2;
SELECT version FROM es_append_batch('many-1', 'none', '[{"type": "a", "tags": ["many"]}, {"type": "b", "tags": ["many"]}]');
SELECT archived FROM es_archive_stream('many-1');
SELECT version FROM es_append_batch('many-2', 'none', '[{"type": "c", "tags": ["many"]}, {"type": "d", "tags": ["many"]}, {"type": "e", "tags": ["many"]}]');
SELECT state FROM es_decide('[{"tags": ["many"]}]', 'decide'::regproc, '[{"type": "f", "stream": "many-2", "tags": ["many"]}]', 'counted'::regproc);
SELECT stream, of_tag, state FROM es_snapshots;
SELECT es_unarchive_stream('many-1');
SELECT state FROM es_decide('[{"tags": ["many"]}]', 'decide'::regproc, '[{"type": "f", "stream": "many-2", "tags": ["many"]}]', 'counted'::regproc);
RESET eventstore.snapshot_every;
SELECT es_archive_stream('order-2') IS NOT NULL AS archived;
SELECT es_unarchive_stream('order-2');

-- es_archive: streams whose last event is old; those with a notice alone have nothing to archive.
SELECT es_archive('order', '1 hour');
SELECT es_archive('orde', '0');
SELECT es_archive('order', '0', 1);
SELECT es_archive('order', '0');
SELECT es_archive('order', '0');
SELECT stream, version, type, data FROM log ORDER BY position;
SELECT stream, count(*) FROM archive GROUP BY 1 ORDER BY 1;
-- One that came back is archived again.
SELECT es_unarchive_stream('order-2');
SELECT es_archive('order', '0', NULL);

-- A truncation leaves the archive. What does not adjoin the log does not come back.
SELECT version FROM es_append('note-1', 'none', 'written');
SELECT version FROM es_append('note-1', 'any', 'read');
SELECT archived FROM es_archive_stream('note-1');
SELECT version FROM es_append('note-1', 'any', 'written');
SELECT version FROM es_append('note-1', 'any', 'read');
SELECT es_truncate_stream('note-1', 5);
SELECT es_unarchive_stream('note-1');
SELECT archived FROM es_archive_stream('note-1');
SELECT version, type FROM es_load_archived('note-1');
SELECT version, type FROM es_load_archived('note-1', 1, 2);
SELECT es_unarchive_stream('note-1');
SELECT version, type FROM es_load('note-1');
SELECT version, type FROM es_load_archived('note-1');

-- A deletion takes the archived events with it. Its notice stands for them, too.
SELECT es_archive_stream('order-1') IS NOT NULL AS archived;
SELECT version, removed FROM es_delete_stream('order-1', 'any');
SELECT version, removed FROM es_delete_stream('note-1', 'any', true);
SELECT stream, version, type, data, tags FROM log WHERE type = 'es_stream_deleted' ORDER BY position;
SELECT count(*) FROM es_archived_events WHERE stream <> 'order-2';
SELECT action, stream, versions, removed FROM es_removals ORDER BY id DESC LIMIT 2;
SELECT * FROM es_archive_stream('order-1');
SELECT es_unarchive_stream('order-1'), es_unarchive_stream('note-1');
SELECT version, position FROM es_append('order-1', 'none', 'placed', '{"n": 1}', id => '00000000-0000-0000-0000-000000000001');
SELECT version FROM es_append('order-1', 'none', 'placed');
SELECT archived FROM es_archive_stream('order-1');

-- An id that was forgotten and appended again.
SELECT version FROM es_append('key-1', 'none', 'made', id => '00000000-0000-0000-0000-000000000005');
SELECT archived FROM es_archive_stream('key-1');
DELETE FROM es_removed_ids;
SELECT version FROM es_append('key-2', 'none', 'made', id => '00000000-0000-0000-0000-000000000005');
SELECT es_unarchive_stream('key-1');
SELECT archived FROM es_archive_stream('key-2');
SELECT es_unarchive_stream('key-1');
SELECT es_unarchive_stream('key-2');

-- Columns of the owner's come along, if the archive has them. Generated ones are made again.
ALTER TABLE es_events ADD COLUMN tenant int DEFAULT 7, ADD COLUMN "n %s" text DEFAULT 'x', ADD COLUMN twice bigint GENERATED ALWAYS AS (version * 2) STORED;
SELECT version FROM es_append('item-1', 'none', 'made');
SELECT es_archive_stream('item-1');
ALTER TABLE es_archived_events ADD COLUMN tenant text;
SELECT es_archive_stream('item-1');
ALTER TABLE es_archived_events DROP COLUMN tenant;
ALTER TABLE es_archived_events ADD COLUMN "n %s" text, ADD COLUMN tenant int;
SELECT archived FROM es_archive_stream('item-1');
SELECT stream, tenant, "n %s" FROM es_archived_events WHERE stream = 'item-1';
SELECT es_unarchive_stream('item-1');
SELECT stream, version, tenant, "n %s", twice FROM es_events WHERE stream = 'item-1' ORDER BY version;
ALTER TABLE es_events DROP COLUMN tenant, DROP COLUMN "n %s", DROP COLUMN twice;
-- A trigger of the owner's that could change what comes back.
SELECT archived FROM es_archive_stream('item-1');
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER changed BEFORE INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION changed();
SELECT es_unarchive_stream('item-1');
DROP TRIGGER changed ON es_events;
DROP FUNCTION changed();

DROP VIEW log, archive;
DROP FUNCTION counted(jsonb, es_recorded_event), decide(jsonb, jsonb);
DROP EXTENSION eventstore;
