-- Moves events of KurrentDB, formerly EventStoreDB, here. import.sql says how.
--
--     psql -f examples/import/kurrentdb.sql DATABASE
--     node kurrentdb.mjs 'kurrentdb://localhost:2113' > events.json
--     psql -c "\copy old_store.lines (line) FROM 'events.json' (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')" DATABASE
--
-- A line is an event of $all, as kurrentdb.mjs writes it. A program in another language may write the same:
--
--     {"streamId": "cart-1", "revision": "0", "id": UUID, "type": "Opened", "created": "2026-01-01T12:00:00.000Z",
--      "isJson": true, "data": {...}, "metadata": {...}, "position": {"commit": "100", "prepare": "100"}}
--
-- Where isJson is false, data are bytes in base64, and come as the event's body. Lines come in the order of $all. A line
-- that is there already is left out, so that a later file may begin with events of an earlier one. Events and streams
-- of the system, whose names begin with "$", are left out, and so are links. The position here is the number of the line.
-- Streams that were truncated get versions from 1. $correlationId and $causationId become correlation_id, causation_id.
--
-- The database cannot keep writers out of KurrentDB. Stop them, write the last file and copy it, and then switch.

\ir import.sql

CREATE TABLE IF NOT EXISTS old_store.lines (
    line    jsonb   NOT NULL,
    number  bigint  PRIMARY KEY,
    commit  numeric NOT NULL,
    prepare numeric NOT NULL,
    UNIQUE (commit, prepare)
);
CREATE OR REPLACE FUNCTION old_store.number_line() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last old_store.lines;
BEGIN
    NEW.commit := NEW.line #>> '{position,commit}';
    NEW.prepare := NEW.line #>> '{position,prepare}';
    SELECT * INTO last FROM old_store.lines ORDER BY number DESC LIMIT 1;
    NEW.number := coalesce(last.number, 0) + 1;
    IF (NEW.commit, NEW.prepare) > (last.commit, last.prepare) IS NOT FALSE THEN
        RETURN NEW;
    ELSIF EXISTS (SELECT FROM old_store.lines WHERE commit = NEW.commit AND prepare = NEW.prepare) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'a line is not in the order of $all' USING ERRCODE = 'invalid_parameter_value',
        DETAIL = format('Its position is %s/%s, that of the line before is %s/%s.',
                        NEW.commit, NEW.prepare, last.commit, last.prepare);
END $$;
CREATE OR REPLACE TRIGGER number_line BEFORE INSERT ON old_store.lines
    FOR EACH ROW EXECUTE FUNCTION old_store.number_line();

CREATE VIEW old_store.events AS
SELECT number AS position, (line->>'revision')::bigint + 1 AS version, (line->>'created')::timestamptz AS recorded_at,
       NULL::timestamptz AS occurred_at, line->>'streamId' AS stream, line->>'type' AS type,
       CASE WHEN line->>'isJson' = 'false' THEN '{}' ELSE coalesce(line->'data', 'null') END AS data,
       nullif(coalesce(m.metadata, '{}') - '$correlationId' - '$causationId'
              || jsonb_strip_nulls(jsonb_build_object('correlation_id', m.metadata->'$correlationId',
                                                      'causation_id', m.metadata->'$causationId')), '{}') AS metadata,
       (line->>'id')::uuid AS id, NULL::text[] AS tags,
       CASE WHEN line->>'isJson' = 'false' THEN decode(line->>'data', 'base64') END AS body
  FROM old_store.lines CROSS JOIN LATERAL (SELECT old_store.as_metadata(line->'metadata') AS metadata) AS m
 WHERE line->>'streamId' NOT LIKE '$%' AND line->>'type' NOT LIKE '$%';

-- Consumers, as you insert them: the checkpoint of a client, or lastCheckpointedEventPosition of a persistent
-- subscription to $all, which is written as C:100/P:100.
CREATE TABLE IF NOT EXISTS old_store.checkpoints (
    name     text PRIMARY KEY,
    category text,
    position text NOT NULL CHECK (position ~ '^C:[0-9]+/P:[0-9]+$')
);
CREATE VIEW old_store.consumers AS
SELECT name, category, coalesce((
           SELECT max(number) FROM old_store.lines
            WHERE (commit, prepare) <= (substring(c.position, 'C:([0-9]+)')::numeric,
                                        substring(c.position, 'P:([0-9]+)')::numeric)), 0) AS position
  FROM old_store.checkpoints AS c;

CREATE OR REPLACE FUNCTION old_store.stable_position() RETURNS bigint LANGUAGE sql AS
    'SELECT coalesce((SELECT position FROM old_store.events ORDER BY position DESC LIMIT 1), 0)';

COMMIT;
