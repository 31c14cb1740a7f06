-- Who sees personal attributes: roles with and without the privilege, functions of others, owners
-- of projections, subscriptions; states and decisions; events that are rewritten, archived, compacted
-- and deleted.
CREATE EXTENSION eventstore;
\set SHOW_CONTEXT never
SET eventstore.snapshot_every = 2;
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, detail);
END $$;
CREATE FUNCTION merged(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE
    RETURN state || event.data || CASE WHEN event.metadata ? '$personal' THEN jsonb_build_object('lacks', event.metadata->'$personal') ELSE '{}' END;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT jsonb_build_array(jsonb_build_object('type', 'noted', 'tags', ARRAY['es_subject:1'], 'data', jsonb_build_object('saw', state->'name'))) $$;
CREATE FUNCTION decide_nothing(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[]'::jsonb $$;
SELECT es_define_event_type('registered', attributes => '{"name": "string"}', personal => '{name,mail}');
SELECT es_append('person-1', 'none', 'registered', '{"name": "Ann", "mail": "a@x", "plan": "gold"}', '{"user": 1}', '00000000-0000-7000-8000-000000000001');
SELECT es_append('person-2', 'none', 'registered', '{"name": "Bob"}');
SELECT es_append('account-1', 'none', 'opened', '{"name": "first"}');

--
-- Roles
--
CREATE ROLE regress_es_hidden;
CREATE ROLE regress_es_sees;
CREATE ROLE regress_es_member;
GRANT regress_es_sees TO regress_es_member;
SELECT es_grant(r, k) FROM unnest('{regress_es_hidden,regress_es_sees}'::regrole[]) r, unnest('{reader,writer,operator,retention}'::text[]) k;
SELECT es_grant('regress_es_sees', 'personal');
SELECT es_sees_personal_data();
SET ROLE regress_es_hidden;
SELECT es_sees_personal_data();
SELECT stream, data, metadata FROM es_read();
SELECT state FROM es_state('person-1', 'merged');
SELECT data, metadata FROM es_query('[{"tags": ["es_subject:2"]}]');
SELECT data, metadata FROM es_event('00000000-0000-7000-8000-000000000001');
-- An operator has the wrapped key, as a dump has, and a call of what reads opens nothing.
SELECT count(*) FROM es_subject_keys;
SELECT es_upcast_data(position, id, stream, type, data, metadata) FROM es_events WHERE stream = 'person-1';
SELECT (es_upcast(e)).data FROM es_load('person-1') e;
SET ROLE regress_es_member;
SELECT stream, data, metadata FROM es_read();
SELECT state FROM es_state('person-1', 'merged');
SELECT es_upcast_data(position, id, stream, type, data, metadata) FROM es_events WHERE stream = 'person-1';
RESET ROLE;
-- A plan that was made for one role, and another one's.
PREPARE load AS SELECT data->'name' AS name FROM es_load('person-1');
EXECUTE load;
SET ROLE regress_es_hidden;
EXECUTE load;
SET ROLE regress_es_sees;
EXECUTE load;
RESET ROLE;
-- The one that a SECURITY DEFINER function is of.
CREATE FUNCTION name_of(stream text) RETURNS jsonb LANGUAGE sql SECURITY DEFINER RETURN (SELECT data->'name' FROM es_load(stream));
CREATE FUNCTION name_to(stream text) RETURNS jsonb LANGUAGE sql SECURITY DEFINER RETURN (SELECT data->'name' FROM es_load(stream));
ALTER FUNCTION name_to(text) OWNER TO regress_es_hidden;
SET ROLE regress_es_hidden;
SELECT name_of('person-1'), name_to('person-1');
RESET ROLE;
SELECT name_of('person-1'), name_to('person-1');
SELECT d.data->'name' AS inside, name_to(d.stream) AS hidden, name_of(d.stream) AS seen FROM es_read() d ORDER BY d.position;
-- The privilege comes and goes within a session.
SELECT es_revoke('regress_es_sees', 'personal');
SET ROLE regress_es_member;
SELECT data->'name' AS name FROM es_load('person-1');
RESET ROLE;
SELECT es_grant('regress_es_sees', 'personal');
SET ROLE regress_es_member;
SELECT data->'name' AS name FROM es_load('person-1');
RESET ROLE;

--
-- States: a snapshot of one is not another's
--
SELECT count(es_append('person-1', 'any', 'moved', jsonb_build_object('n', n))) FROM generate_series(1, 4) n;
SET ROLE regress_es_sees;
SELECT es_snapshot('person-1', 'merged') IS NOT NULL AS saved;
RESET ROLE;
SELECT stream, version, state FROM es_snapshots;
SET ROLE regress_es_hidden;
SELECT state FROM es_state('person-1', 'merged');
SELECT code_of($$SELECT es_snapshot('person-1', 'merged')$$);
SELECT state FROM es_state('account-1', 'merged');
RESET ROLE;
SELECT stream, version, state FROM es_snapshots;
SET ROLE regress_es_sees;
SELECT state FROM es_state('person-1', 'merged');
RESET ROLE;
-- Nobody decides on nulls.
SET ROLE regress_es_hidden;
SELECT code_of($$SELECT es_execute('person-1', 'decide', '{}', 'merged')$$);
SELECT code_of($$SELECT es_execute('person-1', 'decide_nothing', '{}', 'merged')$$);
SELECT code_of($$SELECT es_decide('[{"tags": ["es_subject:1"]}]', 'decide', '{}', 'merged')$$);
SELECT events FROM es_execute('account-1', 'decide', '{}', 'merged');
SELECT events FROM es_decide('[{"types": ["opened"]}]', 'decide', '{}', 'merged');
SET ROLE regress_es_sees;
SELECT events, state FROM es_execute('person-1', 'decide', '{}', 'merged');
SELECT events, state FROM es_decide('[{"tags": ["es_subject:1"]}]', 'decide', '{}', 'merged');
RESET ROLE;

--
-- Projections and subscriptions
--
CREATE TABLE names (who text, stream text, name text, lacks jsonb);
GRANT ALL ON names TO regress_es_hidden, regress_es_sees;
GRANT CREATE ON SCHEMA public TO regress_es_hidden, regress_es_sees;
SET ROLE regress_es_hidden;
CREATE FUNCTION note_hidden(event es_recorded_event) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO names SELECT 'hidden handler', event.stream, event.data->>'name', event.metadata->'$personal' $$;
SELECT es_create_projection('hidden query', types => '{registered}', query => $$ INSERT INTO names SELECT 'hidden query', stream, data->>'name', metadata->'$personal' FROM new_events $$);
SELECT es_create_projection('hidden handler', 'note_hidden(es_recorded_event)', types => '{registered}');
SELECT es_create_projection('hidden sync', types => '{registered}', mode => 'sync', query => $$ INSERT INTO names SELECT 'hidden sync', stream, data->>'name', metadata->'$personal' FROM new_events $$);
SET ROLE regress_es_sees;
CREATE FUNCTION note_seen(event es_recorded_event) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO names SELECT 'handler', event.stream, event.data->>'name', event.metadata->'$personal' $$;
SELECT es_create_projection('query', types => '{registered}', query => $$ INSERT INTO names SELECT 'query', stream, data->>'name', metadata->'$personal' FROM new_events $$);
SELECT es_create_projection('handler', 'note_seen(es_recorded_event)', types => '{registered}');
SELECT es_create_projection('sync', types => '{registered}', mode => 'sync', query => $$ INSERT INTO names SELECT 'sync', stream, data->>'name', metadata->'$personal' FROM new_events $$);
SELECT es_create_projection('sync handler', 'note_seen(es_recorded_event)', types => '{registered}', mode => 'sync');
RESET ROLE;
-- Whoever appends, and whoever runs them. A writer need not see what it writes, nor to repeat it.
SET ROLE regress_es_hidden;
SELECT es_append('person-3', 'none', 'registered', '{"name": "Cid", "mail": null}', id => '00000000-0000-7000-8000-000000000003') IS NOT NULL AS appended;
SELECT code_of($$SELECT es_append('person-3', 'none', 'registered', '{"name": "Cid", "mail": null}', id => '00000000-0000-7000-8000-000000000003')$$);
RESET ROLE;
CALL es_work();
SELECT * FROM names ORDER BY who, stream;
SELECT es_create_subscription('all', types => '{registered}');
SELECT stream, data, metadata FROM es_poll('all', max_count => 2);
SET ROLE regress_es_hidden;
SELECT es_create_subscription('hidden', types => '{registered}');
SELECT stream, data, metadata FROM es_poll('hidden', max_count => 2);
RESET ROLE;
SELECT es_drop_projection(name) FROM es_projections ORDER BY name;

--
-- Events that change
--
-- A role that gets nulls would store them.
SET ROLE regress_es_hidden;
SELECT code_of($$SELECT es_rewrite(id, data || '{"plan": "tin"}') FROM es_event('00000000-0000-7000-8000-000000000001')$$);
RESET ROLE;
SELECT es_rewrite('00000000-0000-7000-8000-000000000001', '{"name": "Anna", "mail": "a@y", "plan": "tin"}') IS NOT NULL AS rewritten;
SELECT data, metadata FROM es_event('00000000-0000-7000-8000-000000000001');
SELECT data, metadata ? '$personal' AS sealed, metadata - '$personal' AS metadata FROM es_events WHERE position = 1;
SELECT es_rewrite('00000000-0000-7000-8000-000000000001', '{"name": "Anne"}', '{"user": 2}') IS NOT NULL AS rewritten;
SELECT data, metadata FROM es_event('00000000-0000-7000-8000-000000000001');
-- Nothing personal is left; and again, of a person that it was not about.
SELECT es_rewrite('00000000-0000-7000-8000-000000000001', '{"plan": "tin"}', '{}') IS NOT NULL AS rewritten;
SELECT data, metadata, tags FROM es_events WHERE position = 1;
SELECT es_rewrite('00000000-0000-7000-8000-000000000001', '{"name": "Ann"}') IS NOT NULL AS rewritten;
SELECT data, metadata FROM es_event('00000000-0000-7000-8000-000000000001');
SELECT es_append('person-4', 'none', 'moved', id => '00000000-0000-7000-8000-000000000004') IS NOT NULL AS appended;
BEGIN;
SELECT es_define_event_type('moved', personal => '{name}');
SELECT es_rewrite('00000000-0000-7000-8000-000000000004', '{"name": "Dan"}') IS NOT NULL AS about_somebody_now;
SELECT data, tags FROM es_event('00000000-0000-7000-8000-000000000004');
ROLLBACK;
-- A retry of what was rewritten.
SELECT version FROM es_append('person-1', 0, 'registered', '{"name": "Ann", "mail": "a@x", "plan": "gold"}', '{"user": 1}', '00000000-0000-7000-8000-000000000001');
-- Archived, read there, and back; compacted, truncated, deleted.
SELECT archived FROM es_archive_stream('person-2');
SELECT data, metadata FROM es_load_archived('person-2');
SET ROLE regress_es_hidden;
SELECT data, metadata FROM es_load_archived('person-2');
RESET ROLE;
SELECT data, metadata ? '$personal' AS sealed FROM es_archived_events;
SELECT es_unarchive_stream('person-2') IS NOT NULL AS back;
SELECT data, metadata FROM es_load('person-2') WHERE type = 'registered';
SELECT code_of($$SELECT es_compact_stream('person-1', 'merged')$$);
SELECT removed FROM es_compact_stream('account-1', 'merged');
SELECT removed FROM es_delete_stream('person-2', 'any');
SELECT subject, key IS NOT NULL AS has_key FROM es_subject_keys ORDER BY subject;
SELECT code_of($$SELECT es_append('person-2', 'any', 'registered', '{"name": "Bob"}')$$);
SELECT data FROM es_load('person-2') WHERE type = 'registered';

SELECT es_revoke(r, k) FROM unnest('{regress_es_hidden,regress_es_sees}'::regrole[]) r, unnest('{reader,writer,operator,retention,personal}'::text[]) k;
REVOKE ALL ON SCHEMA public FROM regress_es_hidden, regress_es_sees;
DROP TABLE names;
DROP FUNCTION code_of, merged, decide, decide_nothing, name_of, name_to, note_hidden, note_seen;
DEALLOCATE load;
DROP EXTENSION eventstore;
DROP ROLE regress_es_hidden, regress_es_sees, regress_es_member;
