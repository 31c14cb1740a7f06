-- Loads, decides and appends, and begins again when another transaction has
-- appended in between. Returns the version of the command's first event; null if
-- there was nothing to do.
--
--   decider     name(state jsonb, command jsonb) RETURNS jsonb, an array of events
--   reducer     as es_state takes it
--   command_id  the same id each time the command is repeated
--   retries     attempts after the first one, before the caller gets ES001
CREATE FUNCTION decide(stream text, decider regproc, command jsonb, reducer es_function,
                       command_id uuid, retries int DEFAULT 10)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    first_id uuid := es_uuid5(command_id, stream || ':1');
    pause float8 := 0.01;
    loaded record;
    events jsonb;
    result bigint;
BEGIN
    FOR retry IN 0 .. retries LOOP
        BEGIN
            SELECT s.state, s.version INTO loaded FROM es_state(stream, reducer) AS s;

            -- Look for an earlier attempt whose answer was lost. As the state is loaded
            -- already, an attempt that is not found now is not in that state, either.
            SELECT e.version INTO result FROM es_events AS e WHERE e.id = first_id;
            IF FOUND THEN
                RETURN result;
            END IF;

            EXECUTE format('SELECT %s($1, $2)', decider) INTO events USING loaded.state, command;
            SELECT jsonb_agg(e.event || jsonb_build_object('id', es_uuid5(command_id, stream || ':' || e.number))
                             ORDER BY e.number)
              INTO events FROM jsonb_array_elements(events) WITH ORDINALITY AS e (event, number);
            IF events IS NULL THEN
                RETURN NULL;
            END IF;
            SELECT a.version INTO result FROM es_append_batch(stream, loaded.version, events) AS a;
            RETURN result - jsonb_array_length(events) + 1;
        EXCEPTION WHEN SQLSTATE 'ES001' OR SQLSTATE 'ES002' THEN
            IF retry = retries THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(pause * (0.5 + random() / 2));
        pause := least(pause * 2, 1);
    END LOOP;
END $$;
