-- Moves the events of Marten here. import.sql says how.
--
--     psql -v schema=public -v category=stream -f examples/import/marten.sql DATABASE
--
-- A stream whose id is a Guid becomes TYPE-GUID, and CATEGORY-GUID where it has no type. A stream whose id is a text
-- keeps it. Events of archived streams come, too, and tombstones do not. Headers become metadata, with correlation_id,
-- causation_id, and tenant_id for another tenant than the default one; its streams are TYPE-TENANT/ID.
--
-- Marten draws positions before it inserts, and in its rich mode before the transaction has a lock. As its daemon does,
-- stable_position() takes a gap for final that stays for old_store.stale_threshold: 3 seconds, as it is there.

\ir import.sql

\if :{?schema}
\else
\set schema public
\endif
\if :{?category}
\else
\set category stream
\endif
SELECT format('%I.mt_events', :'schema') AS events, format('%I.mt_streams', :'schema') AS streams,
       format('%I.mt_event_progression', :'schema') AS progression \gset

-- Columns that Marten makes as it is configured.
SELECT CASE WHEN bool_or(attname = 'correlation_id') THEN 'e.correlation_id' ELSE 'NULL' END AS correlation_id,
       CASE WHEN bool_or(attname = 'causation_id') THEN 'e.causation_id' ELSE 'NULL' END AS causation_id,
       CASE WHEN bool_or(attname = 'headers') THEN 'e.headers' ELSE 'NULL::jsonb' END AS headers,
       CASE WHEN bool_or(attname = 'tenant_id') THEN 'nullif(e.tenant_id, ''*DEFAULT*'')' ELSE 'NULL' END AS tenant_id
  FROM pg_attribute WHERE attrelid = :'events'::regclass AND attnum > 0 AND NOT attisdropped \gset
SELECT format_type(atttypid, NULL) = 'uuid' AS guid
  FROM pg_attribute WHERE attrelid = :'events'::regclass AND attname = 'stream_id' \gset
SELECT :'tenant_id' <> 'NULL' AS has_tenants,
       CASE WHEN :'guid' THEN format('coalesce(s.type, %L) || ''-''', :'category') ELSE '''''' END AS prefix \gset
\if :has_tenants
\set tenant_join 'AND s.tenant_id = e.tenant_id'
\else
\set tenant_join ''
\endif

INSERT INTO old_store.tables VALUES (:'events');

CREATE VIEW old_store.events AS
SELECT e.seq_id AS position, e.version, e.timestamp AS recorded_at, NULL::timestamptz AS occurred_at,
       CASE WHEN :tenant_id IS NULL THEN :prefix || e.stream_id
            ELSE coalesce(s.type, :'category') || '-' || :tenant_id || '/' || e.stream_id END AS stream,
       e.type::text AS type, e.data,
       nullif(coalesce(old_store.as_metadata(:headers), '{}')
              || jsonb_strip_nulls(jsonb_build_object('correlation_id', :correlation_id,
                     'causation_id', :causation_id, 'tenant_id', :tenant_id)), '{}') AS metadata,
       e.id, NULL::text[] AS tags, NULL::bytea AS body
  FROM :events AS e LEFT JOIN :streams AS s ON s.id = e.stream_id :tenant_join
 WHERE e.type <> 'tombstone';

-- Projections and subscriptions, by the name of their shard. The mark of the daemon itself is left out.
CREATE VIEW old_store.consumers AS
SELECT name::text, NULL::text AS category, coalesce(last_seq_id, 0) AS position
  FROM :progression WHERE name NOT LIKE 'HighWaterMark%';

CREATE OR REPLACE FUNCTION old_store.stable_position() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    first bigint := (SELECT position FROM old_store.progress);
    until timestamptz := clock_timestamp()
                         + coalesce(nullif(current_setting('old_store.stale_threshold', true), ''), '3s')::interval;
    last bigint;
    missing bigint;
BEGIN
    EXECUTE format('SELECT max(seq_id) FROM %s', (SELECT name FROM old_store.tables)) INTO last;
    LOOP
        EXECUTE format('SELECT $2 - $1 - count(*) FROM %s WHERE seq_id > $1 AND seq_id <= $2',
                       (SELECT name FROM old_store.tables)) INTO missing USING first, last;
        EXIT WHEN coalesce(missing, 0) = 0 OR clock_timestamp() > until;
        PERFORM pg_sleep(0.5);
    END LOOP;
    PERFORM old_store.wait_for_writers();
    RETURN coalesce(last, 0);
END $$;

COMMIT;
