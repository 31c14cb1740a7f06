-- What valid calls of the fuzzer find: events, types, reducers, projections,
-- subscriptions, failures; and relations and functions of the wrong kind.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS eventstore;

CREATE FUNCTION fold(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql
    AS $$ BEGIN RETURN coalesce(state, '{}') || jsonb_build_object(event.type, event.version); END $$;
CREATE FUNCTION fold_strict(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql STRICT
    AS $$ SELECT state $$;
CREATE FUNCTION fold_null(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION fold_fails(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql
    AS $$ BEGIN IF event.version % 3 = 0 THEN RAISE 'it fails'; END IF; RETURN event.data; END $$;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT command $$;
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT jsonb_build_object('up', data) $$;
CREATE FUNCTION up_null(data jsonb) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT NULL::jsonb $$;
CREATE TABLE read_model (stream text PRIMARY KEY, n bigint);
CREATE FUNCTION handle(event es_recorded_event) RETURNS void LANGUAGE sql
    AS $$ INSERT INTO read_model VALUES (event.stream, 1)
          ON CONFLICT (stream) DO UPDATE SET n = read_model.n + 1 $$;
CREATE FUNCTION handle_fails(event es_recorded_event) RETURNS void LANGUAGE plpgsql
    AS $$ BEGIN IF event.version % 2 = 0 THEN RAISE 'it fails'; END IF; END $$;
CREATE FUNCTION receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql
    AS $$ BEGIN RETURN ROW(payload::jsonb->'header'->>'message_id', now(), 'a', '1', 'e', NULL, NULL)::es_ack_event; END $$;
CREATE FUNCTION receive_fails(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql
    AS $$ BEGIN IF length(payload) % 2 = 0 THEN RAISE 'it fails'; END IF;
          RETURN ROW(md5(payload), now(), 'a', '1', 'e', NULL, NULL)::es_ack_event; END $$;
CREATE SCHEMA handlers;
CREATE FUNCTION handlers.apply_a(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT data $$;
CREATE FUNCTION handlers.a(event es_recorded_event) RETURNS void LANGUAGE sql AS '';
CREATE TYPE "a row" AS (a int, "b""" text);
CREATE VIEW a_view AS SELECT 1 AS one;
CREATE MATERIALIZED VIEW a_matview AS SELECT count(*) AS n FROM es_events;
CREATE SEQUENCE "a ""sequence""";

SELECT es_append('a-' || n % 5, 'any', CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'moved' END,
                 jsonb_build_object('k', n, 'a', n, 'u', md5(n::text)::uuid, 't', now()),
                 tags => ARRAY['all', 't:' || n % 4])
  FROM generate_series(1, 60) n;
SELECT es_define_event_type('moved', composite_key => '{k}', attributes => '{"u": "uuid", "k": "n"}');
SELECT es_define_event_type('a');
SELECT es_define_event_type('b', attributes => '{"a": "any"}', schema_version => 2, personal => '{u,data}');
SELECT es_define_personal_attributes('b', '{t}', 'k');
SELECT es_define_upcaster('b', 1, 'up(jsonb)');
SELECT es_append(s || '-' || n % 5, 'any', 'b', jsonb_build_object('k', n, 'u', 'x', 't', '{}'::jsonb)) FROM generate_series(1, 9) n, unnest('{a,b}'::text[]) s;
SELECT es_erase_subject('2');
SELECT es_reducer('handlers');

SELECT es_create_subscription('s1', lease => '1 s');
SELECT es_create_subscription('s2', category => 'a', partitions => 3, max_attempts => 2);
SELECT es_create_projection('p1', handler => 'handle(es_recorded_event)', tables => '{read_model}');
SELECT es_create_projection('p2', handler => 'handle_fails(es_recorded_event)', on_failure => 'park');

-- The next versions of this stream are the last that there are.
SET session_replication_role = replica;
INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data)
VALUES (nextval('es_position'), 9223372036854775805, '3', now(), es_uuid7(), 'full-1', 'a', '{}');
RESET session_replication_role;
