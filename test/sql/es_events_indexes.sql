-- Indexes that the owner of es_events adds, on the columns of ours but in another
-- order, do not mislead us: ours are those of our constraints.
\set VERBOSITY terse
CREATE EXTENSION eventstore;
CREATE FUNCTION refuse_second(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF state ? 'closed' THEN
        RAISE EXCEPTION 'it is closed';
    END IF;
    RETURN jsonb_build_array(jsonb_build_object('type', 'closed', 'data', '{"closed": true}'::jsonb));
END $$;
SELECT version FROM es_append_batch('li-1', 'none', '[{"type": "a", "data": {"n": 1}}, {"type": "b", "data": {"n": 2}}, {"type": "c", "data": {"n": 3}}]');

-- First in the list of indexes, as ours gets a new oid.
CREATE UNIQUE INDEX li_mine ON es_events (stream, version DESC);
REINDEX INDEX CONCURRENTLY es_events_stream_version_key;
CREATE UNIQUE INDEX li_id ON es_events (id DESC);
REINDEX INDEX CONCURRENTLY es_events_id_key;
CREATE UNIQUE INDEX li_pattern ON es_events (stream text_pattern_ops, version);
SELECT indexrelid::regclass FROM pg_index
 WHERE indrelid = 'es_events'::regclass AND indisunique AND indnatts = 2 ORDER BY indexrelid;

SELECT version, type, state FROM es_history('li-1', 'es_merge(jsonb, es_recorded_event)');
SELECT version, state FROM es_state('li-1', 'es_merge(jsonb, es_recorded_event)');
SELECT version, events FROM es_execute('li-1', 'refuse_second(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)');
SELECT es_execute('li-1', 'refuse_second(jsonb, jsonb)', '{}', 'es_merge(jsonb, es_recorded_event)');
SELECT version FROM es_append('li-1', 4, 'd');
SELECT version FROM es_append('li-1', 4, 'd');
SELECT version FROM es_append('li-2', 'none', 'a', id => '00000000-0000-0000-0000-0000000000a1');
SELECT version FROM es_append('li-2', 'none', 'a', id => '00000000-0000-0000-0000-0000000000a1');
SELECT version FROM es_append('li-3', 'none', 'a', id => '00000000-0000-0000-0000-0000000000a1');

-- A constraint on an index that was made before.
ALTER TABLE es_events DROP CONSTRAINT es_events_stream_version_key;
SELECT version FROM es_append('li-1', 5, 'e');
CREATE UNIQUE INDEX li_again ON es_events (stream, version);
SELECT version FROM es_append('li-1', 5, 'e');
ALTER TABLE es_events ADD CONSTRAINT es_events_stream_version_key UNIQUE USING INDEX li_again;
SELECT version FROM es_append('li-1', 5, 'e');
-- One that is checked late is none.
ALTER TABLE es_events DROP CONSTRAINT es_events_stream_version_key;
ALTER TABLE es_events ADD CONSTRAINT li_late UNIQUE (stream, version) DEFERRABLE;
SELECT version FROM es_append('li-1', 6, 'f');
\set VERBOSITY default
SELECT version FROM es_append('li-1', 6, 'f');
\set VERBOSITY terse
-- What is made in a transaction that is rolled back is forgotten.
BEGIN;
ALTER TABLE es_events DROP CONSTRAINT li_late;
ALTER TABLE es_events ADD CONSTRAINT li_temporary UNIQUE (stream, version);
SELECT version FROM es_append('li-1', 6, 'f');
ROLLBACK;
SELECT version FROM es_append('li-1', 6, 'f');
ALTER TABLE es_events DROP CONSTRAINT li_late;
ALTER TABLE es_events ADD CONSTRAINT es_events_stream_version_key UNIQUE (stream, version);
SELECT version FROM es_append('li-1', 6, 'f');
DROP INDEX li_mine, li_id, li_pattern;

-- The index on the category, in another order.
SELECT es_create_subscription('li', category => 'li');
DROP INDEX es_events_category_position_idx;
CREATE INDEX es_events_category_position_idx ON es_events (es_category(stream), position DESC);
SELECT stream, version FROM es_poll('li', max_count => 4);
DROP INDEX es_events_category_position_idx;
CREATE INDEX es_events_category_position_idx ON es_events (es_category(stream) COLLATE "POSIX", position);
SELECT es_seek('li', 2);
SELECT stream, version FROM es_poll('li', max_count => 4);
DROP INDEX es_events_category_position_idx;
CREATE INDEX es_events_category_position_idx ON es_events (es_category(stream), position);
SELECT es_drop_subscription('li');
DROP EXTENSION eventstore;
DROP FUNCTION refuse_second;
