-- Moves the events of Rails Event Store here. import.sql says how.
--
--     psql -v schema=public -v unlinked=global -f examples/import/rails-event-store.sql DATABASE
--
-- An event comes into the stream that it was put into first, and links are not copied. The first "$" of a stream's name
-- becomes "-", so that Order$1 is in the category Order. Events that are in no stream come into the stream UNLINKED.
-- Data are jsonb, json, or bytes: those that are JSON come as data, others, such as YAML or Protobuf, as the body.
-- Positions in a stream begin at 0, may have gaps, and are not given with the expected version :any.
--
-- Ids are drawn by the inserts, and a transaction that is open may bring a lower one: stable_position() waits for it.
-- There are no consumers with a position.

\ir import.sql

\if :{?schema}
\else
\set schema public
\endif
\if :{?unlinked}
\else
\set unlinked global
\endif
SELECT format('%I.event_store_events', :'schema') AS events,
       format('%I.event_store_events_in_streams', :'schema') AS in_streams \gset

INSERT INTO old_store.tables VALUES (:'events');

CREATE VIEW old_store.events AS
SELECT e.id AS position, s.position + 1::bigint AS version, e.created_at AT TIME ZONE 'UTC' AS recorded_at,
       e.valid_at AT TIME ZONE 'UTC' AS occurred_at,
       CASE WHEN s.stream IS NULL THEN :'unlinked' ELSE regexp_replace(s.stream, '\$', '-') END AS stream,
       e.event_type::text AS type, coalesce(old_store.as_json(e.data), '{}') AS data,
       old_store.as_metadata(old_store.as_json(e.metadata)) AS metadata, old_store.as_id(e.event_id::text) AS id,
       NULL::text[] AS tags, old_store.as_body(e.data) AS body
  FROM :events AS e
  LEFT JOIN LATERAL (SELECT stream, position FROM :in_streams AS i
                      WHERE i.event_id = e.event_id ORDER BY i.id LIMIT 1) AS s ON true;

CREATE VIEW old_store.consumers AS
SELECT NULL::text AS name, NULL::text AS category, NULL::bigint AS position WHERE false;

COMMIT;

-- Rails Event Store has an index like this in its newer migrations.
SELECT NOT EXISTS (SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = indrelid AND a.attnum = indkey[0]
                    WHERE indrelid = :'in_streams'::regclass AND attname = 'event_id') AS without_index \gset
\if :without_index
CREATE INDEX CONCURRENTLY old_store_event_id ON :in_streams (event_id, id);
\endif
