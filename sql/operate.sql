-- What a role sees of the failures: all, if it may read the table, else those of its
-- own projections, subscriptions and messages. A role that does not exist any more owns
-- nothing.
CREATE VIEW es_visible_failures WITH (security_barrier) AS
    SELECT f.*
      FROM es_failures f
     WHERE pg_catalog.has_table_privilege('es_failures'::regclass::oid, 'SELECT')
        OR pg_catalog.pg_has_role((CASE WHEN f.topic IS NOT NULL THEN f.receiver
                                        WHEN f.projection IS NOT NULL THEN
                                            (SELECT p.owner FROM es_projections p WHERE p.name = f.projection)
                                        ELSE (SELECT s.owner FROM es_subscriptions s WHERE s.name = f.subscription)
                                   END)::oid, 'USAGE');

CREATE FUNCTION es_failures(projection text DEFAULT NULL, stream text DEFAULT NULL, type text DEFAULT NULL,
                            max_count bigint DEFAULT 20, skip bigint DEFAULT 0, subscription text DEFAULT NULL,
                            topic text DEFAULT NULL, group_id text DEFAULT NULL)
    RETURNS SETOF es_failures LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT f.*
      FROM es_visible_failures f
     WHERE (es_failures.projection IS NULL OR f.projection = es_failures.projection)
       AND (es_failures.subscription IS NULL OR f.subscription = es_failures.subscription)
       AND (es_failures.topic IS NULL OR f.topic = es_failures.topic)
       AND (es_failures.group_id IS NULL OR f.group_id = es_failures.group_id)
       AND (es_failures.stream IS NULL OR f.stream = es_failures.stream)
       AND (es_failures.type IS NULL OR f.type = es_failures.type)
     ORDER BY f.last_failed_at DESC, f.id DESC
     LIMIT max_count OFFSET skip;
END;

-- The same for events that projections leave out.
CREATE VIEW es_visible_skipped_events WITH (security_barrier) AS
    SELECT s.*
      FROM es_skipped_events s
     WHERE pg_catalog.has_table_privilege('es_skipped_events'::regclass::oid, 'SELECT')
        OR pg_catalog.pg_has_role((SELECT p.owner FROM es_projections p WHERE p.name = s.projection)::oid, 'USAGE');

COMMENT ON VIEW es_visible_skipped_events IS 'skipped events that the role may see: all for an operator, else those of its projections';
COMMENT ON COLUMN es_visible_skipped_events.projection IS 'as in es_skipped_events';
COMMENT ON COLUMN es_visible_skipped_events.position IS 'as in es_skipped_events';
COMMENT ON COLUMN es_visible_skipped_events.event_id IS 'as in es_skipped_events';
COMMENT ON COLUMN es_visible_skipped_events.stream IS 'as in es_skipped_events';
COMMENT ON COLUMN es_visible_skipped_events.type IS 'as in es_skipped_events';
COMMENT ON COLUMN es_visible_skipped_events.reason IS 'as in es_skipped_events';
COMMENT ON COLUMN es_visible_skipped_events.skipped_by IS 'as in es_skipped_events';
COMMENT ON COLUMN es_visible_skipped_events.skipped_at IS 'as in es_skipped_events';
COMMENT ON VIEW es_visible_failures IS 'failures that the role may see: all for an operator, else those of what it owns';
COMMENT ON COLUMN es_visible_failures.id IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.projection IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.subscription IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.partition IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.topic IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.group_id IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.event_id IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.position IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.stream IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.version IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.type IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.message_id IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.checksum IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.payload IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.metadata IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.handler IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.receiver IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.search_path IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.sqlstate IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.message IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.detail IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.context IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.attempts IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.retry_at IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.first_failed_at IS 'as in es_failures';
COMMENT ON COLUMN es_visible_failures.last_failed_at IS 'as in es_failures';
COMMENT ON FUNCTION es_failures(text, text, text, bigint, bigint, text, text, text) IS
    'lists failures, the newest first: of a projection, stream, type, subscription, topic or group';

CREATE FUNCTION es_horizon_holders(
    OUT pid int, OUT gid text, OUT since timestamptz, OUT username text, OUT application_name text,
    OUT client_addr text, OUT state text, OUT streams text[], OUT remedy text)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10;
REVOKE EXECUTE ON FUNCTION es_horizon_holders() FROM PUBLIC;

CREATE VIEW es_horizon_holders AS SELECT * FROM es_horizon_holders();

COMMENT ON FUNCTION es_horizon_holders() IS 'rows of the view es_horizon_holders';
COMMENT ON VIEW es_horizon_holders IS 'transactions that may own a position and are not over, so that they hold the horizon; the oldest first';
COMMENT ON COLUMN es_horizon_holders.pid IS 'process of the session; null: the transaction is prepared';
COMMENT ON COLUMN es_horizon_holders.gid IS 'name of the prepared transaction; null: it is of a session';
COMMENT ON COLUMN es_horizon_holders.since IS 'when the transaction began, or was prepared';
COMMENT ON COLUMN es_horizon_holders.username IS 'role of the session, or that has prepared the transaction';
COMMENT ON COLUMN es_horizon_holders.application_name IS 'application_name of the session';
COMMENT ON COLUMN es_horizon_holders.client_addr IS 'address of the client; null: a Unix socket, or prepared';
COMMENT ON COLUMN es_horizon_holders.state IS 'state of the session, as in pg_stat_activity, or prepared';
COMMENT ON COLUMN es_horizon_holders.streams IS 'streams that it has locked, among those of the last 1000 events; null: unknown';
COMMENT ON COLUMN es_horizon_holders.remedy IS 'statement that ends it; what it has appended is lost';
