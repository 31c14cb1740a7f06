-- Moves the messages of emmett's PostgreSQL store here. import.sql says how.
--
--     psql -v schema=public -v partition=emt:default -f examples/import/emmett.sql DATABASE
--
-- The messages of one partition come, those of archived streams as well. Commands of workflows come as events, so that
-- versions stay; their metadata have "message_kind": "C". A schema version other than 1 becomes the key schema_version.
--
-- emmett orders its readers by transaction id and global position, and lets them see the transactions that are older
-- than every running one. Among these a transaction of a higher id may have lower positions. So that rule does not say
-- below which position nothing can come, and stable_position() waits for the transactions that write.

\ir import.sql

\if :{?schema}
\else
\set schema public
\endif
\if :{?partition}
\else
\set partition emt:default
\endif
SELECT format('%I.emt_messages', :'schema') AS messages, format('%I.emt_processors', :'schema') AS processors \gset
-- Before 0.42 checkpoints were in emt_subscriptions.
SELECT to_regclass(:'processors') IS NOT NULL AS has_processors \gset
\if :has_processors
\set processor processor_id
\set checkpoint last_processed_checkpoint
\else
SELECT format('%I.emt_subscriptions', :'schema') AS processors \gset
\set processor subscription_id
\set checkpoint last_processed_position
\endif

INSERT INTO old_store.tables VALUES (:'messages');

CREATE VIEW old_store.events AS
SELECT global_position AS position, stream_position AS version, created AS recorded_at,
       NULL::timestamptz AS occurred_at, stream_id AS stream, message_type AS type, message_data AS data,
       nullif(coalesce(old_store.as_metadata(message_metadata), '{}')
              || CASE WHEN message_kind = 'E' THEN '{}' ELSE jsonb_build_object('message_kind', message_kind) END
              || CASE WHEN message_schema_version ~ '^[1-9][0-9]{0,8}$' AND message_schema_version <> '1'
                      THEN jsonb_build_object('schema_version', message_schema_version::int) ELSE '{}' END
              || CASE WHEN old_store.as_id(message_id)::text = lower(message_id) THEN '{}'
                      ELSE jsonb_build_object('message_id', message_id) END, '{}') AS metadata,
       old_store.as_id(message_id) AS id, NULL::text[] AS tags, NULL::bytea AS body
  FROM :messages WHERE partition = :'partition';

-- The checkpoint of a processor's latest version is the global position, with leading zeros, of its last message in the
-- order of transaction ids. A subscription goes on below the first message that comes later in that order, so that some
-- may be delivered again, and none is left out.
CREATE VIEW old_store.consumers AS
SELECT p.name, NULL::text AS category,
       coalesce((SELECT min(m.global_position) - 1
                   FROM :messages AS last JOIN :messages AS m USING (partition)
                  WHERE last.partition = :'partition' AND last.global_position = p.position
                    AND m.global_position < p.position AND m.transaction_id > last.transaction_id), p.position) AS position
  FROM (SELECT DISTINCT ON (:processor) :processor AS name, :checkpoint::bigint AS position
          FROM :processors WHERE partition = :'partition' ORDER BY :processor, version DESC) AS p;

COMMIT;

-- emmett has no index by global position, without which each batch would read the whole table.
SELECT format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON %s (global_position)', c.relname || '_position', c.oid::regclass)
  FROM pg_partition_tree(:'messages') AS p JOIN pg_class AS c ON c.oid = p.relid WHERE p.isleaf \gexec
