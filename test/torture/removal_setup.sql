-- What the clients of removals.py need in a database.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;

CREATE FUNCTION torture_sum(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_object('n', coalesce((state->>'n')::bigint, 0) + 1,
                              'sum', coalesce((state->>'sum')::bigint, 0) + coalesce(((event).data->>'amount')::bigint, 0));

-- What a projection has seen, and when. One reads behind the log, the other is part of the append,
-- and the third has a filter that notices pass.
CREATE TABLE seen (position bigint PRIMARY KEY, id uuid, stream text, version bigint, type text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION see(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO seen VALUES (event.position, event.id, event.stream, event.version, event.type, clock_timestamp())
$$;
SELECT es_create_projection('seen', 'see(es_recorded_event)', tables => '{seen}', batch_size => 50);
CREATE TABLE seen_now (LIKE seen INCLUDING ALL);
SELECT es_create_projection('now', category => '{a, b, c}', mode => 'sync', tables => '{seen_now}', query => $$
    INSERT INTO seen_now SELECT position, id, stream, version, type, clock_timestamp() FROM new_events $$);
CREATE TABLE seen_typed (LIKE seen INCLUDING ALL);
SELECT es_create_projection('typed', types => '{x}', tables => '{seen_typed}', batch_size => 200, query => $$
    INSERT INTO seen_typed SELECT position, id, stream, version, type, clock_timestamp() FROM new_events $$);
SELECT es_create_subscription('consumers', partitions => 2, lease => '1s', max_attempts => 1000);
