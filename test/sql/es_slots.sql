-- es_set_slots, es_slots: a store that refuses to write to streams of another one.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
\set SHOW_CONTEXT never

-- Slots of the streams below: those of s-2 and s-4 are below 512
SELECT stream, es_partition(stream, 1024) < 512 AS below
  FROM unnest('{s-1,s-2,s-3,s-4,other-1,other-7}'::text[]) AS stream;

-- Where they are not set nothing is refused, and nothing is left behind
SELECT es_slots() IS NULL AS every_stream, es_set_slots(NULL);
SELECT count(*) FROM pg_trigger WHERE tgname = 'es_events_accept';
SELECT version FROM es_append('s-2', 'none', 'a', id => '00000000-0000-4000-8000-000000000002');
SELECT version FROM es_append('s-2', 1, 'b', id => '00000000-0000-4000-8000-000000000003');
SELECT version FROM es_append('s-1', 'none', 'a');

SELECT es_set_slots('{[512,1024)}');
SELECT es_slots();
SELECT pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE tgname = 'es_events_accept';

-- Appends, in all their forms
SELECT version FROM es_append('s-1', 1, 'a');
\set VERBOSITY sqlstate
SELECT version FROM es_append('s-2', 2, 'a');
\set VERBOSITY default
SELECT version FROM es_append('s-2', 99, 'a');
SELECT version FROM es_append('s-2', 1, 'b', id => '00000000-0000-4000-8000-000000000003');
SELECT version FROM es_append_batch('s-2', 'any', '[{"type": "a"}, {"type": "b"}]');
SELECT version FROM es_append_batch('s-2', 'any', '[]');
SELECT version FROM es_append_batch('s-2', 'any', '{a,b}'::text[], '{"{}","{}"}'::jsonb[]);
SELECT position > 0 AS stored FROM es_append_if('[{"type": "a", "stream": "s-3", "tags": ["t"]}]', '[{"tags": ["t"]}]');
SELECT position FROM es_append_if('[{"type": "a", "stream": "s-3", "tags": ["u"]}, {"type": "a", "stream": "s-2", "tags": ["u"]}]', '[{"tags": ["u"]}]');
SELECT version FROM es_load('s-3') ORDER BY version;

-- Imports
INSERT INTO es_import (stream, type) VALUES ('s-1', 'i'), ('s-3', 'i');
INSERT INTO es_import (stream, type) VALUES ('s-1', 'i'), ('s-2', 'i');
INSERT INTO es_import_log (position, version, recorded_at, stream, type, data) VALUES (1000, 3, now(), 's-2', 'i', '{}');
INSERT INTO es_import_log (position, version, recorded_at, stream, type, data) VALUES (1000, 1, now(), 'other-7', 'i', '{}');

-- Rows that come otherwise: INSERT, COPY, as a replica; nothing is raised to their positions
INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data)
VALUES (5000, 3, '3', now(), gen_random_uuid(), 's-2', 'i', '{}');
COPY es_events (position, version, next_xid, recorded_at, id, stream, type, data) FROM STDIN;
5000	3	3	2026-01-01	00000000-0000-4000-8000-000000000009	s-2	i	{}
\.
SET session_replication_role = replica;
INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data)
VALUES (5000, 3, '3', now(), gen_random_uuid(), 's-2', 'i', '{}');
RESET session_replication_role;
SELECT last_value FROM es_position;
INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data)
VALUES (2000, 2, '3', now(), gen_random_uuid(), 'other-7', 'i', '{}');

-- Commands: the decider is not called, nor does it matter that it decides on nothing
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql
    AS $$ BEGIN IF command ? 'fail' THEN RAISE 'decided'; END IF; RETURN command->'events'; END $$;
CREATE FUNCTION decide_tagged(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT jsonb_build_array(jsonb_build_object('type', 'a', 'stream', command->>'stream', 'tags', '["v"]'::jsonb)) $$;
SELECT version FROM es_execute('s-1', 'decide', '{"events": [{"type": "c"}]}', 'es_merge', '{"command_id": "00000000-0000-4000-8000-0000000000c1"}');
SELECT version FROM es_execute('s-2', 'decide', '{"events": [{"type": "c"}]}', 'es_merge', '{"command_id": "00000000-0000-4000-8000-0000000000c2"}');
SELECT version FROM es_execute('s-2', 'decide', '{"events": []}', 'es_merge');
SELECT version FROM es_execute('s-2', 'decide', '{"fail": true}', 'es_merge');
SELECT events FROM es_decide('[{"tags": ["v"]}]', 'decide_tagged', '{"stream": "s-3"}', 'es_merge');
SELECT events FROM es_decide('[{"tags": ["v"]}]', 'decide_tagged', '{"stream": "s-2"}', 'es_merge');

-- A message whose handler appends there has failed
CREATE FUNCTION handle(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    AS $$ SELECT ROW(NULL, NULL, 'received', NULL, payload, NULL, NULL)::es_ack_event $$;
SELECT * FROM es_receive('t', 'g', 's-2', 'handle', max_retries => 0);
SELECT sqlstate, detail FROM es_failures();

-- Rewrites, deletion, truncation, compaction, the archive
SELECT es_rewrite('00000000-0000-4000-8000-000000000002', '{"new": 1}');
SELECT version FROM es_delete_stream('s-2', 'any');
SELECT version FROM es_delete_stream('s-4', 'any', tombstone => true);
SELECT es_truncate_stream('s-2', 2);
SELECT version FROM es_compact_stream('s-2', 'es_merge');
SELECT version FROM es_archive_stream('s-2');
SELECT es_unarchive_stream('s-2');
SELECT es_truncate_stream('s-1', 3);
SELECT version FROM es_archive_stream('s-3');

-- What goes by categories leaves out the other streams, but retention removes what it is to
SELECT es_archive('s', '0');
SELECT stream FROM es_archived_events GROUP BY stream ORDER BY stream;
SELECT es_set_retention('s', max_count => 1);
SELECT es_run_retention();
SELECT version, type FROM es_load('s-2');

-- Reads go on, of all that is here
SELECT version, type FROM es_load('other-7');
SELECT es_stream_version('s-2'), es_stream_version('s-4');
SELECT version FROM es_state('s-2', 'es_merge');

-- Other slots; a rollback, a savepoint
SELECT es_set_slots('{[0,10),[200,1024)}');
SELECT version FROM es_append('s-2', 'any', 'a');
BEGIN;
SELECT es_set_slots('{}');
SELECT es_slots();
SAVEPOINT a;
SELECT version FROM es_append('s-2', 'any', 'a');
ROLLBACK TO a;
SELECT es_set_slots(NULL), es_slots();
SELECT version FROM es_append('s-2', 'any', 'a');
ROLLBACK;
SELECT es_slots();
SELECT es_set_slots('{[0,1024)}'), es_set_slots(NULL), es_slots();
SELECT tgenabled FROM pg_trigger WHERE tgname = 'es_events_accept';
SELECT version FROM es_append('s-2', 'any', 'a');
SELECT es_set_slots('{[512,513),[513,1024)}'), es_slots();
SELECT version FROM es_append('s-2', 'any', 'a');
SELECT count(*) FROM es_health WHERE problem IN ('append_refused', 'guard_missing');

-- A slot that is none
SELECT es_set_slots('{[0,1025)}');
SELECT es_set_slots('{[-1,3)}');
SELECT es_set_slots('{[5,)}');
SELECT es_set_slots('{(,)}');
SELECT es_set_slots('{[2147483646,2147483647)}');
BEGIN READ ONLY;
SELECT es_set_slots(NULL);
SELECT es_slots();
ROLLBACK;

-- A trigger of this function that is another one
CREATE TRIGGER mine BEFORE INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION es_events_accept('{[0,1024)}');
SELECT version FROM es_append('s-1', 'any', 'a');
INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data)
VALUES (3000, 3, '3', now(), gen_random_uuid(), 'other-7', 'i', '{}');
DROP TRIGGER mine ON es_events;
CREATE OR REPLACE TRIGGER es_events_accept BEFORE INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION es_events_accept('{[0,1024');
SELECT version FROM es_append('s-1', 'any', 'a');
CREATE OR REPLACE TRIGGER es_events_accept BEFORE INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION es_events_accept();
SELECT version FROM es_append('s-1', 'any', 'a');
SELECT es_slots();
SELECT es_set_slots('{[512,1024)}');

-- Who may
CREATE ROLE es_slots_writer;
SELECT es_grant('es_slots_writer', 'writer');
SET ROLE es_slots_writer;
SELECT version FROM es_append('s-3', 'any', 'a');
SELECT version FROM es_append('s-2', 'any', 'a');
SELECT es_slots();
SELECT es_set_slots(NULL);
RESET ROLE;
SELECT es_revoke('es_slots_writer', 'writer');
DROP ROLE es_slots_writer;

-- Another schema, another name
DROP FUNCTION handle(text, jsonb);
DROP EXTENSION eventstore;
CREATE SCHEMA "Es ""x";
CREATE EXTENSION eventstore SCHEMA "Es ""x";
SET search_path = "Es ""x", public;
SELECT es_set_slots('{[512,1024)}');
ALTER SCHEMA "Es ""x" RENAME TO y;
SET search_path = y, public;
SELECT es_slots();
SELECT version FROM es_append('s-2', 'any', 'a');
SELECT version FROM es_append('s-1', 'any', 'a');
SELECT es_set_slots('{[512,600)}');
DROP EXTENSION eventstore;
RESET search_path;
DROP SCHEMA y;
DROP FUNCTION decide(jsonb, jsonb), decide_tagged(jsonb, jsonb);
