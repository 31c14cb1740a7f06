-- Moves the events of an application of the Python library eventsourcing here. import.sql says how.
--
--     psql -v application=bank -f examples/import/eventsourcing.sql DATABASE
--     psql -v schema=public -v events=stored_events -f examples/import/eventsourcing.sql DATABASE
--
-- The position is the notification id. The stream is the aggregate's class, as the topic of its first event has it, and
-- the originator's id: Account-GUID. The type is the topic. The state comes as data if it is JSON, with the time of the
-- event. A state that is compressed or encrypted comes as the body, and the event with the time 1970-01-01. The library
-- gives no ids: an event's id follows from the table, the originator and the version.
--
-- An insert locks the table first, so that notification ids follow the order of commits.

\ir import.sql

\if :{?schema}
\else
\set schema public
\endif
\if :{?events}
\else
\if :{?application}
SELECT :'application' || '_events' AS events \gset
\else
\set events stored_events
\endif
\endif
SELECT format('%I.%I', :'schema', :'events') AS stored_events \gset

INSERT INTO old_store.tables VALUES (:'stored_events');

CREATE VIEW old_store.events AS
SELECT e.notification_id AS position, e.originator_version AS version,
       coalesce((s.state #>> '{timestamp,_data_}')::timestamptz, 'epoch') AS recorded_at,
       NULL::timestamptz AS occurred_at,
       split_part(split_part(f.topic, ':', 2), '.', 1) || '-' || e.originator_id AS stream,
       e.topic AS type, coalesce(s.state, '{}') AS data, NULL::jsonb AS metadata,
       old_store.as_id(concat_ws('/', :'events', e.originator_id, e.originator_version)) AS id,
       NULL::text[] AS tags, CASE WHEN s.state IS NULL THEN e.state END AS body
  FROM :stored_events AS e
 CROSS JOIN LATERAL (SELECT old_store.as_json(e.state) AS state OFFSET 0) AS s
 CROSS JOIN LATERAL (SELECT topic FROM :stored_events AS f WHERE f.originator_id = e.originator_id
                      ORDER BY f.originator_version LIMIT 1) AS f;

-- Applications that follow this one have its last notification id in a table NAME_tracking.
SELECT coalesce(string_agg(format(
           'SELECT %L::text AS name, NULL::text AS category, max(notification_id) AS position
              FROM %I.%I WHERE lower(application_name) || ''_events'' = %L GROUP BY 1, 2',
           regexp_replace(table_name, '_tracking$', ''), table_schema, table_name, :'events'), ' UNION ALL '),
       'SELECT NULL::text AS name, NULL::text AS category, NULL::bigint AS position WHERE false') AS consumers
  FROM information_schema.tables WHERE table_schema = :'schema' AND table_name LIKE '%\_tracking' \gset
CREATE VIEW old_store.consumers AS :consumers;

COMMIT;
