-- What calls of every function name: for the drivers (drivers.sql), and for the calls that
-- are made from the catalog (../sql/es_arguments.sql).
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data || '{"up": 1}' $$;
CREATE TABLE read_model (stream text);
CREATE FUNCTION handle(event es_recorded_event) RETURNS void LANGUAGE sql
    AS $$ INSERT INTO read_model VALUES (event.stream) $$;
CREATE FUNCTION handle_fails(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'it fails'; END $$;
CREATE FUNCTION receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    AS $$ SELECT jsonb_populate_record(NULL::es_ack_event, '{"entity_id": "e", "event_type": "a", "stream": "received-1"}') $$;
CREATE FUNCTION receive_fails(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN RAISE 'it fails'; END $$;
CREATE SCHEMA handlers;
CREATE FUNCTION handlers.apply_a(state jsonb, data jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT data $$;
