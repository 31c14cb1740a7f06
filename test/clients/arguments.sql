-- What the programs arguments.* call, each with its driver's parameters.
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_array(jsonb_build_object('type', 'counted', 'data', command));
CREATE FUNCTION receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    RETURN (NULL, NULL, NULL, NULL, NULL, NULL)::es_ack_event;
CREATE FUNCTION receive(text) RETURNS text LANGUAGE sql RETURN $1;
CREATE FUNCTION handle(event es_recorded_event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION upcast(data jsonb) RETURNS jsonb LANGUAGE sql RETURN data;
-- prepared statements keep their plans
SELECT * FROM es_append('c-1', 'none', 'counted', '{"n": 0}');
