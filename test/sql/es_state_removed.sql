-- States of streams from which events were removed: deleted, truncated, archived; es_compact has the
-- compacted ones.
CREATE EXTENSION eventstore;
SET eventstore.snapshot_every = 0;
SET timezone = 'UTC';

-- The code of the error of a statement; null: none.
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

-- Events as a restored dump brings them, whose times can be chosen: one a day.
CREATE FUNCTION put(stream text, n bigint, occurred_at timestamptz DEFAULT NULL, tags text[] DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
    INSERT INTO es_events (position, version, next_xid, recorded_at, occurred_at, id, stream, type, data, tags)
    VALUES (nextval('es_position'), n, '1', timestamptz '2020-01-01' + n * interval '1 day', occurred_at, es_uuid7(), stream, 'put',
            jsonb_build_object('n', n, 'k' || n, n), tags)
$$;

-- One reducer of each kind. The first two do not expect a state that is null.
CREATE SCHEMA app;
CREATE FUNCTION app.count(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN state || jsonb_build_object('count', coalesce((state->>'count')::int, 0) + 1);
CREATE FUNCTION app.strict(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql STRICT AS $$
BEGIN
    RETURN state || jsonb_build_object('count', coalesce((state->>'count')::int, 0) + 1);
END $$;
CREATE FUNCTION app.apply_put(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql RETURN state || data;
CREATE TABLE reducers AS SELECT n, r FROM unnest(ARRAY['app.count', 'app.strict', 'es_merge', 'es_last', es_reducer('app')::text]) WITH ORDINALITY AS t (r, n);

-- A store without removals: a stream that does not begin at 1 is one that has lost events, and is folded.
SELECT put('odd-1', n) FROM generate_series(3, 4) n;
SELECT * FROM es_state('odd-1', 'app.count');
SELECT * FROM es_state('odd-1', 'app.count', at_version => 2);

--
-- Deleted: the state is null, and the next event is the first one of a new stream
--
SELECT put('del-1', n) FROM generate_series(1, 3) n;
SELECT * FROM es_delete_stream('del-1', 3);
SELECT r, s.state IS NULL AS null, s.version FROM reducers, es_state('del-1', r::text) s ORDER BY n;
SELECT r, h.version, h.type, h.state IS NULL AS null FROM reducers, es_history('del-1', r::text) h ORDER BY n;
-- Nothing is saved for it, so that the next fold begins with it again.
SELECT es_snapshot('del-1', 'app.count'), count(*) FROM es_snapshots;
SELECT version FROM es_append('del-1', 'none', 'put', '{"n": 5, "k5": 5}');
SELECT version FROM es_append('del-1', 5, 'put', '{"n": 6, "k6": 6}');
SELECT r, s.state, s.version FROM reducers, es_state('del-1', r::text, '{"initial": 1}') s ORDER BY n;
SELECT r, h.version, h.type, h.state FROM reducers, es_history('del-1', r::text, '{"initial": 1}') h ORDER BY n, version;
SELECT r, s.state, s.version FROM reducers, es_state('del-1', r::text, NULL) s ORDER BY n;
SELECT v, s.state, s.state IS NULL AS null, s.version FROM generate_series(4, 6) v, es_state('del-1', 'app.count', at_version => v) s ORDER BY v;
-- The same from a snapshot.
SELECT es_snapshot('del-1', r::text) FROM reducers ORDER BY n;
SELECT version FROM es_append('del-1', 6, 'put', '{"n": 7}');
SELECT r, s.state, s.version FROM reducers, es_state('del-1', r::text) s ORDER BY n;
DELETE FROM es_snapshots;
SELECT r, s.state, s.version FROM reducers, es_state('del-1', r::text) s ORDER BY n;
-- What was before it is not known any more.
SELECT v, code_of(format('SELECT es_state(''del-1'', ''app.count'', at_version => %s)', v)) FROM generate_series(0, 4) v ORDER BY v;

-- Commands.
CREATE FUNCTION app.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_array(jsonb_build_object('type', 'put', 'data', jsonb_build_object('was_null', state IS NULL)));
SELECT put('cmd-1', n) FROM generate_series(1, 2) n;
SELECT version, state FROM es_execute('cmd-1', 'app.decide', '{}', 'es_merge', '{"command_id": "00000000-0000-0000-0000-00000000000a"}');
SELECT removed FROM es_delete_stream('cmd-1', 3);
-- One that is repeated is not decided again, and gets the state at the first event that is kept.
SELECT version, state, events FROM es_execute('cmd-1', 'app.decide', '{}', 'es_merge', '{"command_id": "00000000-0000-0000-0000-00000000000a"}');
SELECT code_of('SELECT es_execute(''cmd-1'', ''app.decide'', ''{}'', ''es_merge'', expected => ''exists'')') AS exists,
       code_of('SELECT es_execute(''cmd-1'', ''app.decide'', ''{}'', ''es_merge'', expected => 3)') AS three;
SELECT version, state FROM es_execute('cmd-1', 'app.decide', '{}', 'es_merge', expected => 'none');
SELECT version, state FROM es_execute('cmd-1', 'app.decide', '{}', 'app.count', expected => 'exists');
SELECT removed FROM es_delete_stream('cmd-1', 6, true);
SELECT code_of('SELECT es_execute(''cmd-1'', ''app.decide'', ''{}'', ''es_merge'')');

--
-- Truncated: folded from the first event that is kept
--
SELECT put('cut-1', n) FROM generate_series(1, 6) n;
SELECT es_snapshot('cut-1', 'app.count');
SELECT es_truncate_stream('cut-1', 4);
SELECT r, s.state, s.version FROM reducers, es_state('cut-1', r::text) s ORDER BY n;
SELECT v, code_of(format('SELECT es_state(''cut-1'', ''app.count'', at_version => %s)', v)) FROM generate_series(0, 6) v ORDER BY v;
SELECT * FROM es_state('cut-1', 'app.count', at_version => 3);
SELECT * FROM es_state('cut-1', 'app.count', at_time => '2020-01-04 23:59');
SELECT * FROM es_state('cut-1', 'app.count', at_time => '2020-01-05');
SELECT v, t, code_of(format('SELECT es_state(''cut-1'', ''app.count'', at_version => %s, at_time => %L)', v, t))
  FROM unnest(ARRAY[0, 3, 4]) v, unnest(ARRAY['2020-01-04', '2020-01-05', 'infinity']) t ORDER BY v, t;
SELECT version, state FROM es_history('cut-1', 'app.count');
SELECT version, state FROM es_execute('cut-1', 'app.decide', '{}', 'app.count');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT state, version FROM es_state('cut-1', 'app.count');
SELECT version, state FROM es_execute('cut-1', 'app.decide', '{}', 'app.count');
SELECT state, version FROM es_state('cut-1', 'app.count');
COMMIT;
-- A stream that nobody has ever appended to is none of them.
SELECT * FROM es_state('none-1', 'app.count', at_version => 3);
SELECT * FROM es_state('none-1', 'app.count', at_time => '-infinity', by_time => 'occurred');

--
-- By the time at which events happened: the first one that is kept must come first
--
SELECT put('hap-1', n, timestamptz '2019-01-01' + n * interval '1 day') FROM generate_series(1, 5) n;
SELECT es_truncate_stream('hap-1', 3);
SELECT * FROM es_state('hap-1', 'app.count', by_time => 'occurred');
SELECT * FROM es_state('hap-1', 'app.count', at_time => '2019-01-04', by_time => 'occurred');
SELECT * FROM es_state('hap-1', 'app.count', at_time => '2019-01-03', by_time => 'occurred');
SELECT v, code_of(format('SELECT es_state(''hap-1'', ''app.count'', at_version => %s, by_time => ''occurred'')', v)) FROM generate_series(0, 3) v ORDER BY v;
SELECT put('hap-1', 6, '2018-01-01');
SELECT code_of('SELECT es_state(''hap-1'', ''app.count'', by_time => ''occurred'')') AS six_comes_first,
       code_of('SELECT es_state(''hap-1'', ''app.count'', at_version => 5, by_time => ''occurred'')') AS without_it;
-- Nothing was removed from this one.
SELECT put('hap-2', 1, '2019-01-02'), put('hap-2', 2, '2019-01-01');
SELECT * FROM es_state('hap-2', 'es_last', by_time => 'occurred', at_time => '2019-01-01');

--
-- Archived: an error, until the events are back
--
SELECT put('arc-1', n) FROM generate_series(1, 3) n;
SELECT version, archived FROM es_archive_stream('arc-1');
SELECT * FROM es_state('arc-1', 'app.count');
SELECT r, code_of(format('SELECT es_state(''arc-1'', %L)', r)) FROM reducers ORDER BY n;
SELECT v, code_of(format('SELECT es_state(''arc-1'', ''app.count'', at_version => %s)', v)) FROM generate_series(0, 4) v ORDER BY v;
SELECT code_of('SELECT es_execute(''arc-1'', ''app.decide'', ''{}'', ''app.count'')'), code_of('SELECT es_compact_stream(''arc-1'', ''app.count'')');
SELECT version FROM es_append('arc-1', 'any', 'put', '{"n": 5}');
SELECT code_of('SELECT es_state(''arc-1'', ''app.count'')');
SELECT es_unarchive_stream('arc-1');
SELECT r, s.state, s.version FROM reducers, es_state('arc-1', r::text) s ORDER BY n;
SELECT version, type, state FROM es_history('arc-1', 'app.count');
SELECT removed FROM es_compact_stream('arc-1', 'app.count', 4);
SELECT * FROM es_state('arc-1', 'app.count');

--
-- A query's fold passes over what was deleted or archived
--
SELECT put('q-1', n, NULL, '{tag}') FROM generate_series(1, 2) n;
SELECT put('q-2', n, NULL, '{tag}') FROM generate_series(1, 2) n;
SELECT put('q-3', 1, NULL, '{tag}');
SELECT removed FROM es_delete_stream('q-1', 2);
SELECT archived FROM es_archive_stream('q-2');
CREATE FUNCTION app.decide_none(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN '[]'::jsonb;
CREATE FUNCTION app.decide_one(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_array(jsonb_build_object('type', 'put', 'stream', 'q-4', 'tags', jsonb_build_array('tag'), 'data', state));
SELECT state FROM es_decide('[{"tags": ["tag"]}]', 'app.decide_none', '{}', 'app.count');
SELECT state, events FROM es_decide('[{"tags": ["tag"]}]', 'app.decide_one', '{}', 'app.count');
SELECT state FROM es_decide('[{"tags": ["tag"]}, {"types": ["es_stream_deleted"]}]', 'app.decide_none', '{}', 'app.count');

--
-- A role that does not see all events
--
CREATE ROLE removed_reader;
GRANT SELECT ON es_events TO removed_reader;
GRANT USAGE ON SCHEMA app TO removed_reader;
GRANT EXECUTE ON FUNCTION es_execute TO removed_reader;
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE es_events FORCE ROW LEVEL SECURITY;
CREATE POLICY all_of_owner ON es_events TO CURRENT_USER USING (true);
CREATE POLICY visible ON es_events TO removed_reader USING (stream <> 'hap-1' AND (stream <> 'cut-1' OR version <> 4) AND (stream <> 'arc-2' OR version <> 2));
SELECT put('arc-2', n) FROM generate_series(1, 2) n;
SELECT archived FROM es_archive_stream('arc-2');
SET ROLE removed_reader;
-- It sees the stream from 5 on, of which the first one that is kept is 4.
SELECT * FROM es_state('cut-1', 'app.count', at_version => 6);
SELECT * FROM es_state('cut-1', 'app.count', at_version => 4);
SELECT v, code_of(format('SELECT es_state(''cut-1'', ''app.count'', at_version => %s)', v)) FROM generate_series(0, 5) v ORDER BY v;
SELECT code_of('SELECT es_state(''cut-1'', ''app.count'', at_time => ''2020-01-04'')') AS before, code_of('SELECT es_state(''cut-1'', ''app.count'', at_time => ''2020-01-05'')') AS hidden;
SELECT code_of('SELECT es_execute(''cut-1'', ''app.decide'', ''{}'', ''app.count'')');
-- Of a stream of which it sees nothing it does not learn whether anything was removed.
SELECT * FROM es_state('hap-1', 'app.count', at_version => 2);
SELECT * FROM es_state('hap-1', 'app.count', at_version => 2, by_time => 'occurred');
SELECT code_of('SELECT es_state(''arc-2'', ''app.count'')');
-- A stream that it sees as a whole can be decided on, from the first event that is kept.
SELECT version, state FROM es_execute('del-1', 'app.decide', '{}', 'app.count');
RESET ROLE;
SELECT es_unarchive_stream('arc-2');
SET ROLE removed_reader;
-- The event before es_stream_archived is back, and hidden.
SELECT * FROM es_state('arc-2', 'app.count');
RESET ROLE;
DROP POLICY visible ON es_events;
DROP POLICY all_of_owner ON es_events;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
ALTER TABLE es_events NO FORCE ROW LEVEL SECURITY;
REVOKE ALL ON es_events FROM removed_reader;
REVOKE ALL ON SCHEMA app FROM removed_reader;
REVOKE ALL ON FUNCTION es_execute FROM removed_reader;
DROP ROLE removed_reader;

SET client_min_messages = warning;
DROP TABLE reducers;
DROP SCHEMA app CASCADE;
DROP FUNCTION put, code_of;
DROP EXTENSION eventstore;
