-- What the clients of the torture need in a database: read models, subscriptions,
-- a decider and its reducer.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;

-- The order of events counts here: each row is a chain of digests.
CREATE TABLE chain (stream text PRIMARY KEY, version bigint NOT NULL, n bigint NOT NULL, digest text NOT NULL);
CREATE FUNCTION chain(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chain AS c VALUES (event.stream, event.version, 1, md5(event.id::text || event.data::text))
    ON CONFLICT (stream) DO UPDATE SET version = excluded.version, n = c.n + 1, digest = md5(c.digest || excluded.digest);
END $$;
SELECT es_create_projection('chain', 'chain(es_recorded_event)', category => 'acct', tables => '{chain}', batch_size => 50);

CREATE TABLE totals (type text PRIMARY KEY, n bigint NOT NULL, versions numeric NOT NULL);
SELECT es_create_projection('totals', tables => '{totals}', batch_size => 200, query => $$
    INSERT INTO totals AS t SELECT type, count(*), sum(version) FROM new_events GROUP BY type
    ON CONFLICT (type) DO UPDATE SET n = t.n + excluded.n, versions = t.versions + excluded.versions $$);

-- Part of the append.
CREATE TABLE live (stream text PRIMARY KEY, version bigint NOT NULL, n bigint NOT NULL);
SELECT es_create_projection('live', category => 'acct', mode => 'sync', tables => '{live}', query => $$
    INSERT INTO live AS l SELECT stream, max(version), count(*) FROM new_events GROUP BY stream
    ON CONFLICT (stream) DO UPDATE SET version = excluded.version, n = l.n + excluded.n $$);

SELECT es_create_subscription('all', partitions => 4, lease => '2s', max_attempts => 1000);
SELECT es_create_subscription('acct', category => 'acct', partitions => 2, lease => '1s', max_attempts => 1000);
SELECT es_create_subscription('typed', types => '{opened, decided}', partitions => 1, lease => '1s', max_attempts => 1000);

-- An account that knows how many events it has had, and the last one.
CREATE FUNCTION dec_reduce(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_object('n', coalesce((state->>'n')::bigint, 0) + 1,
                              'sum', coalesce((state->>'sum')::bigint, 0) + ((event).data->>'amount')::bigint,
                              'last', (event).data->>'mark');
-- Events of a decision say what it was made on.
CREATE FUNCTION dec_decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce((state->>'sum')::bigint, 0) + (command->>'amount')::bigint < 0 THEN
        RAISE EXCEPTION 'only % left', state->>'sum';
    END IF;
    RETURN (SELECT jsonb_agg(jsonb_build_object('type', 'decided', 'data', jsonb_build_object(
                'mark', mark.value, 'saw', state, 'back', mark.n - 1, 'amount', (command->>'amount')::bigint)) ORDER BY mark.n)
              FROM jsonb_array_elements_text(command->'marks') WITH ORDINALITY AS mark (value, n));
END $$;
