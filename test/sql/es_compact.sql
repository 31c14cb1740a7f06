-- es_compact_stream: the oldest events of a stream become one event, with the state that they fold to.
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

-- A stream of five events, each with an id, of which two have tags if that is asked for.
CREATE FUNCTION event_id(stream text, n bigint) RETURNS uuid LANGUAGE sql RETURN es_uuid5('00000000-0000-0000-0000-000000000000', stream || '/' || n);
CREATE FUNCTION open_account(stream text, tagged boolean DEFAULT false) RETURNS bigint LANGUAGE sql AS $$
    SELECT max(e.version) FROM generate_series(1, 5) n,
           es_append(stream, n - 1, CASE n WHEN 1 THEN 'opened' ELSE 'deposited' END, jsonb_build_object('amount', n, 'k' || n, n),
                     jsonb_build_object('n', n), event_id(stream, n), NULL,
                     CASE WHEN tagged AND n = 2 THEN ARRAY['branch:a', 'vip'] WHEN tagged AND n = 4 THEN ARRAY['branch:b'] END, 'body') e
$$;
-- What says what was compacted; the fingerprint may differ between versions of the server.
CREATE FUNCTION kept(stream text) RETURNS TABLE (version bigint, "position" bigint, type text, data jsonb, metadata jsonb, tags text[], body bytea) LANGUAGE sql AS $$
    SELECT e.version, e.position, e.type, e.data - 'fingerprint', e.metadata, e.tags, e.body FROM es_load(stream) e
$$;

-- One reducer of each kind.
CREATE SCHEMA app;
CREATE FUNCTION app.total(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE
    RETURN state || jsonb_build_object('total', coalesce((state->>'total')::int, 0) + (event.data->>'amount')::int, 'version', event.version);
CREATE FUNCTION app.slow_total(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce(state, '{}') || jsonb_build_object('total', coalesce((state->>'total')::int, 0) + (event.data->>'amount')::int);
END $$;
CREATE FUNCTION app.strict_total(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql STRICT
    RETURN state || jsonb_build_object('total', coalesce((state->>'total')::int, 0) + (event.data->>'amount')::int);
CREATE FUNCTION app.none(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN CASE WHEN event.version < 5 THEN state END;
CREATE FUNCTION app.apply_opened(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_object('sum', 1);
CREATE FUNCTION app.apply_deposited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_object('sum', (state->>'sum')::int + (data->>'amount')::int);
CREATE TABLE reducers AS SELECT n, r FROM unnest(ARRAY['app.total', 'app.slow_total', 'app.strict_total', 'app.none', 'es_merge', 'es_last', es_reducer('app')::text]) WITH ORDINALITY AS t (r, n);
SELECT n, r, code_of(format('SELECT open_account(%L)', 'r-' || n)) FROM reducers ORDER BY n;

-- The states from the compacted version on are what they were, whatever the reducer.
CREATE TABLE before AS SELECT n, h.version, h.state, s.state AS last FROM reducers, es_history('r-' || n, r::text) h, es_state('r-' || n, r::text) s;
SELECT n, c.* FROM reducers, es_compact_stream('r-' || n, r::text, 4) c ORDER BY n;
SELECT n, r, h.version, h.type, h.state, h.state IS NOT DISTINCT FROM b.state AS same
  FROM reducers JOIN LATERAL es_history('r-' || n, r::text) h ON true JOIN before b USING (n, version) ORDER BY n, version;
SELECT n, s.version, s.state IS NOT DISTINCT FROM b.last AS same, t.version, t.state IS NOT DISTINCT FROM b.state AS same
  FROM reducers JOIN before b USING (n), es_state('r-' || n, r::text) s, es_state('r-' || n, r::text, at_version => 4) t WHERE b.version = 4 ORDER BY n;
SELECT k.* FROM kept('r-1') k;
-- A state that is null has no key.
SELECT * FROM es_compact_stream('r-4', 'app.none');
SELECT k.* FROM kept('r-4') k;
SELECT state IS NULL AS null, version FROM es_state('r-4', 'app.none');
-- What is not known any more is an error, version 0 is not.
SELECT v, code_of(format('SELECT es_state(''r-1'', ''app.total'', at_version => %s)', v)) FROM generate_series(0, 5) v ORDER BY v;
SELECT * FROM es_state('r-1', 'app.total', at_version => 0);
\set VERBOSITY terse
SELECT * FROM es_state('r-1', 'app.total', at_version => 3);
SELECT * FROM es_state('r-1', 'app.total', at_time => '-infinity');
\set VERBOSITY default
SELECT es_load.version, es_load.type FROM es_load('r-1', 0, 1);

--
-- Any other reducer gets an error
--
SELECT * FROM es_state('r-1', 'app.slow_total');
SELECT code_of('SELECT es_history(''r-1'', ''es_merge'')'), code_of('SELECT es_snapshot(''r-1'', ''es_last'')'),
       code_of(format('SELECT es_state(''r-1'', %L)', es_reducer('app'))), code_of('SELECT es_state(''r-1'', ''app.total'', at_version => 4)') AS own;
SELECT * FROM es_state('r-1', 'app.total', '{"other": 1}');
SELECT code_of('SELECT es_state(''r-1'', ''app.total'', NULL)'), code_of('SELECT es_state(''r-1'', ''app.total'', ''null'')');
SELECT * FROM es_compact_stream('r-1', 'es_merge');
-- The same with another definition.
BEGIN;
CREATE OR REPLACE FUNCTION app.total(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN state || '{"other": true}';
SELECT * FROM es_state('r-1', 'app.total');
ROLLBACK;
BEGIN;
-- A function of the schema is a part of its reducer.
CREATE FUNCTION app.apply_closed(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql RETURN state;
SELECT code_of(format('SELECT es_state(''r-7'', %L)', es_reducer('app')));
ROLLBACK;
SELECT code_of(format('SELECT es_state(''r-7'', %L)', es_reducer('app')));
-- The search_path and upcasters are not: there is nothing left to fold in another way.
BEGIN;
SET LOCAL search_path = app, public;
SELECT state, version FROM es_state('r-1', 'app.total');
SET LOCAL search_path = public;
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql RETURN data;
SELECT es_define_event_type('withdrawn', schema_version => 2);
SELECT es_define_upcaster('withdrawn', 1, 'up');
SELECT state, version FROM es_state('r-1', 'app.total');
ROLLBACK;
-- A changed reducer can adopt the state, if it is told to.
BEGIN;
CREATE OR REPLACE FUNCTION app.total(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql
    RETURN state || jsonb_build_object('total', (state->>'total')::int + (event.data->>'amount')::int, 'new', true);
SELECT * FROM es_compact_stream('r-1', 'app.total', 4, adopt => true);
SELECT k.* FROM kept('r-1') k;
SELECT * FROM es_state('r-1', 'app.total');
SELECT * FROM es_state('r-1', 'app.total', at_version => 4);
SELECT * FROM es_compact_stream('r-1', 'es_merge', adopt => true);
SELECT k.* FROM kept('r-1') k;
SELECT * FROM es_state('r-1', 'es_merge');
ROLLBACK;

--
-- Again, with more events; and again, with nothing new
--
SELECT * FROM es_compact_stream('r-1', 'app.total', 4);
SELECT * FROM es_compact_stream('r-1', 'app.total', metadata => '{"why": "again"}');
SELECT k.* FROM kept('r-1') k;
SELECT * FROM es_compact_stream('r-1', 'app.total', metadata => '{"why": "nothing"}');
SELECT k.metadata FROM kept('r-1') k;
SELECT * FROM es_state('r-1', 'app.total');
SELECT version FROM es_append('r-1', 5, 'deposited', '{"amount": 10}');
SELECT * FROM es_state('r-1', 'app.total');
-- One event alone becomes es_compacted in its place.
SELECT version FROM es_append('one-1', 'none', 'opened', '{"amount": 1}', '{"n": 1}');
SELECT removed FROM es_compact_stream('one-1', 'es_merge');
SELECT k.version, k.type, k.data, k.metadata FROM kept('one-1') k;
SELECT action, stream, versions, removed, metadata FROM es_removals WHERE stream IN ('r-1', 'one-1') ORDER BY id;
SELECT i.version, i.id = event_id('r-1', i.version) AS same FROM es_removed_ids i WHERE stream = 'r-1' ORDER BY 1;

--
-- Tags, types and queries
--
SELECT open_account('t-1', true);
SELECT open_account('t-2', true);
SELECT es_index_type('deposited');
SELECT max(position) AS last_t1 FROM es_load('t-1') \gset
SELECT * FROM es_compact_stream('t-1', 'app.total', metadata => '{"why": "test"}');
SELECT k.* FROM kept('t-1') k;
SELECT tag, position = :last_t1 AS there, type FROM es_tags WHERE position <= :last_t1 ORDER BY tag;
SELECT t, q.stream, q.version, q.type FROM unnest(ARRAY['["branch:a"]', '["vip", "branch:b"]', '["branch:b"]']) t,
       es_query(format('[{"tags": %s}]', t)::jsonb) q ORDER BY 1, position;
SELECT stream, version, type FROM es_query('[{"types": ["opened"], "tags": ["vip"]}]') ORDER BY position;
SELECT stream, version, type FROM es_query('[{"types": ["es_compacted"], "tags": ["vip"]}]') ORDER BY position;
SELECT stream, count(*) FROM es_query('[{"types": ["deposited"]}]') WHERE stream LIKE 't-%' GROUP BY 1 ORDER BY 1;
SELECT * FROM es_reindex_tags();
-- A condition must not hold because its evidence was compacted.
SELECT code_of(format('SELECT es_append_if(''[{"type": "x", "stream": "u-1"}]'', ''[{"tags": ["vip"]}]'', %s)', :last_t1 - 3));
SELECT code_of('SELECT es_append_if(''[{"type": "x", "stream": "u-1"}]'', ''[{"types": ["opened"], "tags": ["branch:b"]}]'', 0)');
-- A fold of a query does not take a stream's state.
CREATE FUNCTION app.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_array(jsonb_build_object('type', 'decided', 'stream', 'd-1', 'data', jsonb_build_object('amount', 1)));
SELECT * FROM es_decide('[{"tags": ["vip"]}]', 'app.decide', '{}', 'app.total');
DROP INDEX es_events_type_deposited_idx;

--
-- Retries
--
SELECT n, (SELECT r FROM es_append('t-1', n - 1, 'deposited', '{"other": 1}', NULL, event_id('t-1', n)) r) FROM generate_series(1, 6) n WHERE n IN (1, 3, 5);
SELECT * FROM es_append_batch('t-1', 'any', (SELECT jsonb_agg(jsonb_build_object('type', 'deposited', 'id', event_id('t-1', n)) ORDER BY n) FROM generate_series(3, 5) n));
SELECT * FROM es_append('t-9', 'any', 'deposited', '{}', NULL, event_id('t-1', 2));
SELECT version, type FROM es_load('t-1');

--
-- Commands
--
CREATE FUNCTION app.deposit(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_array(jsonb_build_object('type', 'deposited', 'data', jsonb_build_object('amount', (state->>'total')::int)));
SELECT version, state, events FROM es_execute('t-1', 'app.deposit', '{}', 'app.total');
SELECT code_of('SELECT es_execute(''t-1'', ''app.deposit'', ''{}'', ''app.slow_total'')');
-- A command that is repeated, whose events were compacted with later ones.
SELECT version, state, events FROM es_execute('cmd-1', 'app.deposit', '{}', 'es_merge', '{"command_id": "00000000-0000-0000-0000-00000000000a"}', initial => '{"total": 7}');
SELECT version FROM es_append('cmd-1', 1, 'deposited', '{"later": true}');
SELECT removed FROM es_compact_stream('cmd-1', 'es_merge', initial => '{"total": 7}');
SELECT version, state, events FROM es_execute('cmd-1', 'app.deposit', '{}', 'es_merge', '{"command_id": "00000000-0000-0000-0000-00000000000a"}', initial => '{"total": 7}');
SELECT count(*) FROM es_load('cmd-1');

--
-- Snapshots
--
SELECT open_account('s-1');
SELECT es_snapshot('s-1', 'es_merge'), es_snapshot('s-1', 'app.total');
SELECT removed FROM es_compact_stream('s-1', 'app.total', 3);
SELECT count(*) FROM es_snapshots WHERE stream = 's-1';
SELECT es_snapshot('s-1', 'app.total');
SELECT version, state FROM es_snapshots WHERE stream = 's-1';
SELECT code_of('SELECT es_state(''s-1'', ''es_merge'')'), code_of('SELECT es_state(''s-1'', ''app.total'', at_version => 2)');

--
-- Deleted streams
--
SELECT open_account('del-1');
SELECT removed FROM es_compact_stream('del-1', 'app.total', 3);
SELECT removed FROM es_delete_stream('del-1', 5);
SELECT type, data->'types' AS types FROM es_load('del-1');
SELECT * FROM es_compact_stream('del-1', 'app.total');
SELECT version FROM es_append('del-1', 'none', 'deposited', '{"amount": 3}');
SELECT removed FROM es_compact_stream('del-1', 'app.total');
SELECT k.version, k.type, k.data FROM kept('del-1') k;
SELECT open_account('del-2');
SELECT removed FROM es_delete_stream('del-2', 5, true);
SELECT removed FROM es_compact_stream('del-2', 'app.total', adopt => true);
SELECT code_of('SELECT es_append(''del-2'', ''any'', ''opened'')');
-- What says no more than the first event that is kept can be truncated.
SELECT version FROM es_append('s-1', 5, 'carried', '{"amount": 15}');
SELECT es_truncate_stream('s-1', 6);
SELECT state, version FROM es_state('s-1', 'app.slow_total');

--
-- What is refused
--
SELECT open_account('bad-1');
SELECT * FROM es_compact_stream('missing-1', 'es_merge');
SELECT * FROM es_compact_stream('missing-1', 'es_merge', 1);
SELECT * FROM es_compact_stream('bad-1', 'es_merge', 6);
SELECT * FROM es_compact_stream('bad-1', 'es_merge', 0);
SELECT code_of(s), s FROM unnest(ARRAY[
    'SELECT es_compact_stream(NULL, ''es_merge'')', 'SELECT es_compact_stream(''bad-1'', NULL)', 'SELECT es_compact_stream(''bad-1'', ''es_merge'', adopt => NULL)',
    'SELECT es_compact_stream(''bad-1'', ''missing'')', 'SELECT es_compact_stream(''bad-1'', ''es_merge'', metadata => ''[]'')', 'SELECT es_compact_stream(''es_x'', ''es_merge'')',
    'SELECT es_compact_stream(''t-1'', ''app.total'', 4)']) s;
BEGIN READ ONLY;
SELECT * FROM es_compact_stream('bad-1', 'es_merge');
ROLLBACK;
-- A reducer that fails leaves all as it was.
CREATE FUNCTION app.fails(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
SELECT code_of('SELECT es_compact_stream(''bad-1'', ''app.fails'')'), count(*) FROM es_load('bad-1');
CREATE FUNCTION app.on_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER on_update BEFORE UPDATE ON es_events FOR EACH ROW EXECUTE FUNCTION app.on_update();
SELECT code_of('SELECT es_compact_stream(''bad-1'', ''es_merge'')');
DROP TRIGGER on_update ON es_events;
-- It changes the type and tags as well.
CREATE TRIGGER on_update BEFORE UPDATE OF type ON es_events FOR EACH ROW EXECUTE FUNCTION app.on_update();
SELECT code_of('SELECT es_compact_stream(''bad-1'', ''es_merge'')');
DROP TRIGGER on_update ON es_events;
-- Notices are not rewritten, and have no definition.
SELECT code_of(format('SELECT es_rewrite(%L, ''{}'')', id)), type FROM es_events WHERE type LIKE 'es\_%' GROUP BY id, type ORDER BY type, 1;
SELECT es_rewrite(event_id('t-1', 5), '{}');
SELECT code_of('SELECT es_define_event_type(''es_compacted'')');
SELECT code_of('UPDATE es_events SET data = ''{}'''), code_of('DELETE FROM es_events');
-- The stream was not touched.
SELECT count(*), min(version), max(version) FROM es_load('bad-1');

--
-- Privileges
--
CREATE ROLE compact_user;
GRANT USAGE ON SCHEMA app TO compact_user;
SET ROLE compact_user;
SELECT code_of('SELECT es_compact_stream(''bad-1'', ''es_merge'')');
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_compact_stream TO compact_user;
SET ROLE compact_user;
SELECT * FROM es_compact_stream('bad-1', 'es_merge');
RESET ROLE;
GRANT SELECT ON es_events TO compact_user;
REVOKE EXECUTE ON FUNCTION app.total FROM PUBLIC;
SET ROLE compact_user;
SELECT code_of('SELECT es_compact_stream(''bad-1'', ''app.total'')');
SELECT removed FROM es_compact_stream('bad-1', 'es_merge', 2);
RESET ROLE;
SELECT removed_by FROM es_removals WHERE stream = 'bad-1';
-- Row security: who does not see all may not compact, and sees a compacted event by the policy.
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON es_events USING (type <> 'es_compacted');
SET ROLE compact_user;
SELECT code_of('SELECT es_compact_stream(''bad-1'', ''es_merge'')');
SELECT version, type FROM es_load('bad-1');
SELECT state->'amount' AS amount, version FROM es_state('bad-1', 'es_merge');
SELECT code_of('SELECT es_state(''bad-1'', ''es_merge'', at_version => 2)'), code_of('SELECT es_state(''bad-1'', ''es_merge'', at_version => 1)');
RESET ROLE;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
DROP POLICY own ON es_events;
REVOKE ALL ON es_events FROM compact_user;
REVOKE ALL ON FUNCTION es_compact_stream FROM compact_user;
REVOKE ALL ON SCHEMA app FROM compact_user;
DROP ROLE compact_user;

SET client_min_messages = warning;
DROP TABLE reducers, before;
DROP SCHEMA app CASCADE;
DROP FUNCTION kept, open_account, event_id, code_of;
DROP EXTENSION eventstore;
