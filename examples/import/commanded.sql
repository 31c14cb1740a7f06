-- Moves the events of Commanded here, out of the tables of the Elixir library EventStore. import.sql says how.
--
--     psql -v schema=public -f examples/import/commanded.sql DATABASE
--
-- The position is the number in the stream $all. Links are not copied. Streams that were deleted softly come; those
-- that were deleted with their events are not there to come. Data are jsonb, or bytes: those that are JSON come as
-- data, others as the event's body. Ids of correlation and causation become keys of the metadata.
--
-- Each append updates the row of $all as its last step but one, and commits with it. So numbers follow the order of
-- commits, and nothing comes below one that is to be seen: stable_position() waits for nothing.

\ir import.sql

\if :{?schema}
\else
\set schema public
\endif
SELECT format('%I.events', :'schema') AS events, format('%I.streams', :'schema') AS streams,
       format('%I.stream_events', :'schema') AS stream_events,
       format('%I.subscriptions', :'schema') AS subscriptions \gset

INSERT INTO old_store.tables VALUES (:'events'), (:'stream_events');

CREATE VIEW old_store.events AS
SELECT a.stream_version AS position, a.original_stream_version AS version, e.created_at AS recorded_at,
       NULL::timestamptz AS occurred_at, s.stream_uuid AS stream, e.event_type AS type,
       coalesce(old_store.as_json(e.data), '{}') AS data,
       nullif(jsonb_strip_nulls(jsonb_build_object('correlation_id', e.correlation_id, 'causation_id', e.causation_id))
              || coalesce(old_store.as_metadata(old_store.as_json(e.metadata)), '{}'), '{}') AS metadata,
       e.event_id AS id, NULL::text[] AS tags, old_store.as_body(e.data) AS body
  FROM :stream_events AS a
  JOIN :events AS e USING (event_id)
  JOIN :streams AS s ON s.stream_id = a.original_stream_id
 WHERE a.stream_id = 0;

-- Subscriptions to $all. One to a single stream has no counterpart here.
CREATE VIEW old_store.consumers AS
SELECT subscription_name AS name, NULL::text AS category, coalesce(last_seen, 0) AS position
  FROM :subscriptions WHERE stream_uuid = '$all';

CREATE OR REPLACE FUNCTION old_store.stable_position() RETURNS bigint LANGUAGE sql AS
    'SELECT coalesce((SELECT position FROM old_store.events ORDER BY position DESC LIMIT 1), 0)';

COMMIT;
