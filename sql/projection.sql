-- Handlers are stored by name, not as regprocedure, which pg_upgrade refuses in a
-- table.  Owners are of a type that keeps the name of a role that is missing: a restore
-- must not lose all projections because of it.
CREATE TABLE es_projections (
    name           text COLLATE "C" NOT NULL PRIMARY KEY,
    owner          es_role     NOT NULL,
    search_path    text        NOT NULL,
    settings       text[]      NOT NULL DEFAULT '{}',
    handler        text,
    query          text,
    handler_schema text,
    refresh        regclass,
    tables         regclass[]  NOT NULL,
    categories     text[] COLLATE "C",
    types          text[] COLLATE "C",
    event_query    jsonb,
    mode           text        NOT NULL CHECK (mode IN ('sync', 'async')),
    start_position bigint      NOT NULL CHECK (start_position >= 0),
    batch_size     int         NOT NULL CHECK (batch_size BETWEEN 1 AND 1000000),
    on_failure     text        NOT NULL CHECK (on_failure IN ('stop', 'park')),
    max_attempts   int         NOT NULL CHECK (max_attempts BETWEEN 1 AND 1000),
    min_interval   interval    NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    state          text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'failed')),
    position       bigint      NOT NULL CHECK (position >= 0),
    history        bigint      NOT NULL,
    handled        bigint      NOT NULL DEFAULT 0,
    rate           float8,
    ran_at         timestamptz,
    refreshed_at   timestamptz,
    attempts       int         NOT NULL DEFAULT 0,
    attempts_used  int         NOT NULL DEFAULT 0,
    next_attempt   timestamptz,
    failing_since  timestamptz,
    failed_position bigint,
    batch_limit    int         CHECK (batch_limit > 0),
    suspect_upto   bigint,
    sqlstate       text,
    message        text,
    detail         text,
    context        text,
    paused_at      timestamptz,
    CHECK (pg_catalog.num_nonnulls(handler, query, handler_schema, refresh) = 1)
) WITH (fillfactor = 50);

-- Statistics would keep values that an erasure deletes.
ALTER TABLE es_projections ALTER message SET STATISTICS 0, ALTER detail SET STATISTICS 0, ALTER context SET STATISTICS 0;
SELECT pg_catalog.pg_extension_config_dump('es_projections', '');

CREATE FUNCTION es_create_projection(
    name text, handler es_function DEFAULT NULL, query text DEFAULT NULL,
    handler_schema regnamespace DEFAULT NULL, refresh regclass DEFAULT NULL,
    tables regclass[] DEFAULT '{}', category es_categories DEFAULT NULL, types text[] DEFAULT NULL,
    mode text DEFAULT 'async', start_position bigint DEFAULT 0, batch_size bigint DEFAULT 1000,
    on_failure text DEFAULT 'stop', max_attempts bigint DEFAULT 5, min_interval interval DEFAULT '1s',
    event_query jsonb DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_drop_projection(name text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_pause_projection(name text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_resume_projection(name text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_alter_projection(
    name text, mode text DEFAULT NULL, batch_size bigint DEFAULT NULL, on_failure text DEFAULT NULL,
    max_attempts bigint DEFAULT NULL, min_interval interval DEFAULT NULL,
    handler es_function DEFAULT NULL, query text DEFAULT NULL, handler_schema regnamespace DEFAULT NULL,
    category es_categories DEFAULT NULL, types text[] DEFAULT NULL, start_position bigint DEFAULT NULL,
    all_categories boolean DEFAULT false, all_types boolean DEFAULT false,
    event_query jsonb DEFAULT NULL, any_event boolean DEFAULT false)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_rename_projection(name text, new_name text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_rebuild_projection(name text, archived boolean DEFAULT false)
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_run_projections(name text DEFAULT NULL, max_batches bigint DEFAULT NULL)
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE PROCEDURE es_work(stop_when_idle boolean DEFAULT true)
    AS 'MODULE_PATHNAME' LANGUAGE C;
CREATE FUNCTION es_wait(projection text, "position" bigint, timeout interval DEFAULT '5s')
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_replaying()
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;

REVOKE EXECUTE ON FUNCTION
    es_create_projection(text, es_function, text, regnamespace, regclass, regclass[], es_categories, text[], text, bigint, bigint, text, bigint, interval, jsonb),
    es_drop_projection(text), es_pause_projection(text), es_resume_projection(text),
    es_alter_projection(text, text, bigint, text, bigint, interval, es_function, text, regnamespace, es_categories, text[], bigint, boolean, boolean, jsonb, boolean), es_rename_projection(text, text), es_rebuild_projection(text, boolean),
    es_run_projections(text, bigint), es_wait(text, bigint, interval)
    FROM PUBLIC;
REVOKE EXECUTE ON PROCEDURE es_work(boolean) FROM PUBLIC;

-- The trigger function of sync projections: each has a trigger of its own, which
-- es_create_projection makes.
CREATE FUNCTION es_projection_sync() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
-- A dump leaves out triggers on an extension's table: a restored row makes its own.
CREATE FUNCTION es_projection_restore() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_projection_sync(), es_projection_restore() FROM PUBLIC;
CREATE TRIGGER es_projection_restore AFTER INSERT ON es_projections
    FOR EACH ROW EXECUTE FUNCTION es_projection_restore();
ALTER TABLE es_projections ENABLE ALWAYS TRIGGER es_projection_restore;

-- How far projections are behind, for the view below: a row for each of them that the
-- caller may see.  Roles that may read es_failures, and members of pg_read_all_stats,
-- see all of them, and others see those that they own.
CREATE FUNCTION es_projection_lag(
    OUT name text, OUT "position" bigint, OUT horizon bigint, OUT horizon_held_since timestamptz,
    OUT lag_events bigint, OUT lag_is_estimate boolean, OUT lag_since timestamptz)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 10;

-- Arguments have exactly the types of pg_catalog's functions and operators: a
-- function that was in our schema before us could fit better
-- (test/pgtap/security-create.sql).  A rebuild shows its progress by locks that it
-- holds (src/projection/rebuild.c): of what an open transaction does, only its locks
-- can be seen.
CREATE VIEW es_projection_status WITH (security_barrier) AS
    SELECT p.name, p.mode,
           CASE WHEN p.state = 'running' AND p.message IS NOT NULL THEN 'retrying' ELSE p.state END AS state,
           l.position, l.horizon, l.lag_events,
           CASE WHEN l.lag_since IS NULL THEN 0 ELSE extract(epoch FROM greatest(clock_timestamp() - l.lag_since, '0')) END AS lag_seconds,
           l.lag_is_estimate,
           p.handled, p.rate AS events_per_second,
           r.percent AS rebuild_percent,
           CASE WHEN r.percent > 0.0 THEN
               pg_catalog.make_interval(secs => (extract(epoch FROM clock_timestamp() - r.started)
                                                 * (100.0 - r.percent) / r.percent)::float8)
           END AS rebuild_time_left,
           p.sqlstate, p.message AS last_error, p.detail AS error_detail, p.context AS error_context,
           p.attempts, p.next_attempt, p.failing_since, p.failed_position,
           e.stream AS failed_stream, e.version AS failed_version, e.type AS failed_type, e.id AS failed_event_id,
           (SELECT count(*) FROM es_failures f WHERE f.projection = p.name) AS parked,
           l.horizon_held_since
      FROM es_projection_lag() l
      JOIN es_projections p ON p.name = l.name
      LEFT JOIN LATERAL (
         SELECT e.stream, e.version, e.type, e.id FROM es_events e WHERE e.position = p.failed_position OFFSET 0) e ON true
      LEFT JOIN LATERAL (
         SELECT (max(k.objid::bigint) FILTER (WHERE k.objsubid = 4))::numeric / 10.0 - 0.1 AS percent,
                pg_catalog.to_timestamp((max(k.objid::bigint) FILTER (WHERE k.objsubid = 5))::float8) AS started
           FROM pg_locks k
          WHERE k.locktype = 'advisory'
            AND k.objsubid IN (4, 5)
            AND k.objid <> 0::oid
            AND k.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
            AND k.classid = ((hashtext(p.name)::bigint + 4294967296) % 4294967296)::oid
         HAVING count(*) > 0) r ON true;

COMMENT ON TABLE es_projections IS 'projections: their definitions, checkpoints and errors';
COMMENT ON COLUMN es_projections.name IS 'its name, which the trigger of a sync projection has, too';
COMMENT ON COLUMN es_projections.owner IS 'role with whose privileges it runs';
COMMENT ON COLUMN es_projections.search_path IS 'its search_path: the one in force when it was created';
COMMENT ON COLUMN es_projections.settings IS 'settings that change what values mean, as they were when it was created';
COMMENT ON COLUMN es_projections.handler IS 'function that is called for each event';
COMMENT ON COLUMN es_projections.query IS 'statement that is run for each batch';
COMMENT ON COLUMN es_projections.handler_schema IS 'schema with a function on_<type> for each type';
COMMENT ON COLUMN es_projections.refresh IS 'materialized view that is refreshed';
COMMENT ON COLUMN es_projections.tables IS 'tables of its read model, which a rebuild fills';
COMMENT ON COLUMN es_projections.categories IS 'categories of the events that it gets; null: all';
COMMENT ON COLUMN es_projections.types IS 'types of the events that it gets; null: all';
COMMENT ON COLUMN es_projections.event_query IS 'query that the events match that it gets; null: all events';
COMMENT ON COLUMN es_projections.mode IS 'sync: as part of the append; async: later, in batches';
COMMENT ON COLUMN es_projections.start_position IS 'position after which it begins';
COMMENT ON COLUMN es_projections.batch_size IS 'most events in a batch';
COMMENT ON COLUMN es_projections.on_failure IS 'stop, or park the event that fails';
COMMENT ON COLUMN es_projections.max_attempts IS 'how often an event is tried before the projection has failed or parks it';
COMMENT ON COLUMN es_projections.min_interval IS 'least time between two refreshes';
COMMENT ON COLUMN es_projections.created_at IS 'when it was created';
COMMENT ON COLUMN es_projections.state IS 'running, paused or failed';
COMMENT ON COLUMN es_projections.position IS 'its checkpoint: everything up to here is handled';
COMMENT ON COLUMN es_projections.history IS 'last position when it was created: es_replaying() is true up to here';
COMMENT ON COLUMN es_projections.handled IS 'how many events it has handled';
COMMENT ON COLUMN es_projections.rate IS 'events per second in its last batches';
COMMENT ON COLUMN es_projections.ran_at IS 'when its last batch ended';
COMMENT ON COLUMN es_projections.refreshed_at IS 'when its view was last refreshed';
COMMENT ON COLUMN es_projections.attempts IS 'how many attempts have failed since the last success';
COMMENT ON COLUMN es_projections.attempts_used IS 'those of them that count towards max_attempts';
COMMENT ON COLUMN es_projections.next_attempt IS 'earliest time of the next attempt';
COMMENT ON COLUMN es_projections.failing_since IS 'when the first of the attempts failed';
COMMENT ON COLUMN es_projections.failed_position IS 'position of the event that failed; null: it is not known yet';
COMMENT ON COLUMN es_projections.batch_limit IS 'batch size while a bad event is searched for';
COMMENT ON COLUMN es_projections.suspect_upto IS 'last position of the search for a bad event';
COMMENT ON COLUMN es_projections.sqlstate IS 'code of the last error';
COMMENT ON COLUMN es_projections.message IS 'the last error';
COMMENT ON COLUMN es_projections.detail IS 'its detail';
COMMENT ON COLUMN es_projections.context IS 'where it was raised';
COMMENT ON COLUMN es_projections.paused_at IS 'when it was paused; null: it is not';
COMMENT ON VIEW es_projection_status IS 'projections: state, lag, rate, rebuild, errors';
COMMENT ON COLUMN es_projection_status.name IS 'the projection';
COMMENT ON COLUMN es_projection_status.mode IS 'sync or async';
COMMENT ON COLUMN es_projection_status.state IS 'running, retrying, failed (after max_attempts; it still tries again) or paused';
COMMENT ON COLUMN es_projection_status.position IS 'everything up to here is handled';
COMMENT ON COLUMN es_projection_status.horizon IS 'everything up to here is stable';
COMMENT ON COLUMN es_projection_status.lag_events IS 'events that it wants and has not handled';
COMMENT ON COLUMN es_projection_status.lag_seconds IS 'age of the first of them; 0: none; if lag_is_estimate, perhaps of an earlier one';
COMMENT ON COLUMN es_projection_status.lag_is_estimate IS 'whether lag_events is an estimate, as there were too many events to count';
COMMENT ON COLUMN es_projection_status.handled IS 'how many events it has handled';
COMMENT ON COLUMN es_projection_status.events_per_second IS 'events per second in its last batches';
COMMENT ON COLUMN es_projection_status.rebuild_percent IS 'progress of a rebuild; null: there is none';
COMMENT ON COLUMN es_projection_status.rebuild_time_left IS 'estimated time until the rebuild ends; null: unknown';
COMMENT ON COLUMN es_projection_status.sqlstate IS 'code of the last error';
COMMENT ON COLUMN es_projection_status.last_error IS 'the last error; null when nothing is wrong';
COMMENT ON COLUMN es_projection_status.error_detail IS 'its detail';
COMMENT ON COLUMN es_projection_status.error_context IS 'where it was raised';
COMMENT ON COLUMN es_projection_status.attempts IS 'how many attempts have failed since the last success';
COMMENT ON COLUMN es_projection_status.next_attempt IS 'earliest time of the next attempt';
COMMENT ON COLUMN es_projection_status.failing_since IS 'when the first of the attempts failed';
COMMENT ON COLUMN es_projection_status.failed_position IS 'position of the event that failed; null: none has, or it is not found yet';
COMMENT ON COLUMN es_projection_status.failed_stream IS 'its stream';
COMMENT ON COLUMN es_projection_status.failed_version IS 'its version';
COMMENT ON COLUMN es_projection_status.failed_type IS 'its type';
COMMENT ON COLUMN es_projection_status.failed_event_id IS 'its id';
COMMENT ON COLUMN es_projection_status.parked IS 'how many events are in es_failures';
COMMENT ON COLUMN es_projection_status.horizon_held_since IS 'since when events above the horizon wait for an open append; null: none does';
COMMENT ON FUNCTION es_create_projection(text, es_function, text, regnamespace, regclass, regclass[], es_categories, text[], text, bigint, bigint, text, bigint, interval, jsonb) IS
    'creates a projection of a handler, a query, a schema of handlers or a materialized view';
COMMENT ON FUNCTION es_drop_projection(text) IS
    'drops a projection; its tables stay';
COMMENT ON FUNCTION es_pause_projection(text) IS
    'stops a projection until it is resumed';
COMMENT ON FUNCTION es_resume_projection(text) IS
    'resumes a paused projection; lets one that retries or has failed try at once';
COMMENT ON FUNCTION es_alter_projection(text, text, bigint, text, bigint, interval, es_function, text, regnamespace, es_categories, text[], bigint, boolean, boolean, jsonb, boolean) IS
    'changes settings, code or filter of a projection; null leaves one as it is';
COMMENT ON FUNCTION es_rename_projection(text, text) IS
    'renames a projection, with its failures and skipped events';
COMMENT ON FUNCTION es_rebuild_projection(text, boolean) IS
    'rebuilds the read model from the log while it is read; returns the number of events';
COMMENT ON FUNCTION es_run_projections(text, bigint) IS
    'runs projections that are due in this transaction; returns the number of events handled';
COMMENT ON PROCEDURE es_work(boolean) IS
    'runs projections that are due, with a commit after each batch';
COMMENT ON FUNCTION es_wait(text, bigint, interval) IS
    'waits until a projection has handled everything up to a position; returns false when the time is over';
COMMENT ON FUNCTION es_replaying() IS
    'returns true while a handler gets events from before its projection was created, or in a rebuild';
COMMENT ON FUNCTION es_projection_lag() IS 'part of es_projection_status: how far each projection is behind';
COMMENT ON FUNCTION es_projection_sync() IS
    'trigger of a sync projection: applies the events of an append';
COMMENT ON FUNCTION es_projection_restore() IS
    'trigger: makes the trigger of a restored sync projection';
