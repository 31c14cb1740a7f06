-- Rules by which workers remove events (doc/internals/retention.md).
CREATE TABLE es_retention (
    category       text COLLATE "C" PRIMARY KEY,
    max_age        interval,
    max_count      bigint      CHECK (max_count > 0),
    max_lag        interval,
    set_by         name        NOT NULL,
    set_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    aged_position  bigint      NOT NULL DEFAULT 0,
    seen_position  bigint      NOT NULL DEFAULT 0,
    left_streams   text[] COLLATE "C" NOT NULL DEFAULT '{}',
    tagged_streams text[] COLLATE "C" NOT NULL DEFAULT '{}',
    left_behind    text[] COLLATE "C" NOT NULL DEFAULT '{}',
    removed        bigint      NOT NULL DEFAULT 0,
    removals       bigint      NOT NULL DEFAULT 0,
    held_by        text,
    held_position  bigint,
    held_since     timestamptz,
    ran_at         timestamptz,
    next_run       timestamptz NOT NULL DEFAULT clock_timestamp(),
    paced_until    timestamptz,
    pause          int         NOT NULL DEFAULT 10,
    attempts       int         NOT NULL DEFAULT 0,
    failing_since  timestamptz,
    sqlstate       text,
    message        text,
    detail         text,
    CHECK (pg_catalog.num_nonnulls(max_age, max_count) > 0)
) WITH (fillfactor = 50);
SELECT pg_catalog.pg_extension_config_dump('es_retention', '');

CREATE FUNCTION es_set_retention(category text, max_age interval DEFAULT NULL, max_count bigint DEFAULT NULL,
                                 max_lag interval DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_run_retention(
    category text DEFAULT NULL, dry_run boolean DEFAULT false, force boolean DEFAULT false,
    OUT category text, OUT streams bigint, OUT events bigint, OUT held_by text, OUT held_since timestamptz,
    OUT more boolean)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
REVOKE EXECUTE ON FUNCTION es_set_retention(text, interval, bigint, interval),
    es_run_retention(text, boolean, boolean) FROM PUBLIC;

-- The counts read at most so many events of each rule, by the index of categories.
CREATE VIEW es_retention_status WITH (security_barrier) AS
    SELECT r.category, r.max_age, r.max_count, r.max_lag, r.set_by, r.set_at,
           CASE WHEN r.max_age IS NOT NULL THEN
               (SELECT count(*) FILTER (WHERE e.recorded_at < clock_timestamp() - r.max_age)
                  FROM (SELECT e.recorded_at FROM es_events e
                         WHERE es_category(e.stream) = r.category AND e.position > r.aged_position
                         ORDER BY e.position LIMIT 10000) e)
           END AS overdue,
           (SELECT count(*)
              FROM (SELECT FROM es_events e
                     WHERE es_category(e.stream) = r.category AND e.position > r.seen_position
                     ORDER BY e.position LIMIT 10000) e) AS unseen,
           r.removed, r.held_by, r.held_position, r.held_since, r.left_behind,
           pg_catalog.cardinality(r.left_streams) AS left_streams, pg_catalog.cardinality(r.tagged_streams) AS tagged_streams,
           r.message AS last_error, r.detail AS error_detail, r.sqlstate, r.attempts, r.failing_since,
           r.ran_at, r.next_run
      FROM es_retention r;

COMMENT ON TABLE es_retention IS 'rules of retention: which events of a category workers remove, and how far they are';
COMMENT ON COLUMN es_retention.category IS 'category whose streams the rule is for';
COMMENT ON COLUMN es_retention.max_age IS 'age after which events are removed; null: no limit';
COMMENT ON COLUMN es_retention.max_count IS 'how many of a stream''s newest events are kept; null: no limit';
COMMENT ON COLUMN es_retention.max_lag IS 'how old the oldest unread event of a consumer may be for it to hold anything; null: any age';
COMMENT ON COLUMN es_retention.set_by IS 'role that set the rule';
COMMENT ON COLUMN es_retention.set_at IS 'when it was set';
COMMENT ON COLUMN es_retention.aged_position IS 'events up to here are older than max_age, and are removed, or were left';
COMMENT ON COLUMN es_retention.seen_position IS 'the streams of events up to here were looked at';
COMMENT ON COLUMN es_retention.left_streams IS 'streams that were locked or have a parked event; they are looked at again';
COMMENT ON COLUMN es_retention.tagged_streams IS 'streams that are left since they have events with tags; at most 1000 are noted';
COMMENT ON COLUMN es_retention.left_behind IS 'consumers that hold nothing any more, by max_lag';
COMMENT ON COLUMN es_retention.removed IS 'how many events the rule has removed';
COMMENT ON COLUMN es_retention.removals IS 'in how many removals';
COMMENT ON COLUMN es_retention.held_by IS 'what holds the rule, when it ran last; null: nothing';
COMMENT ON COLUMN es_retention.held_position IS 'position above which it holds events';
COMMENT ON COLUMN es_retention.held_since IS 'since when it has held them at that position';
COMMENT ON COLUMN es_retention.ran_at IS 'when the rule ran last';
COMMENT ON COLUMN es_retention.next_run IS 'when a worker runs it next';
COMMENT ON COLUMN es_retention.paced_until IS 'until when workers pause after it, by eventstore.retention_rate';
COMMENT ON COLUMN es_retention.pause IS 'seconds from one look at new events to the next';
COMMENT ON COLUMN es_retention.attempts IS 'how many runs have failed since the last success';
COMMENT ON COLUMN es_retention.failing_since IS 'when the first of them failed';
COMMENT ON COLUMN es_retention.sqlstate IS 'code of the last error';
COMMENT ON COLUMN es_retention.message IS 'the last error; null: nothing is wrong';
COMMENT ON COLUMN es_retention.detail IS 'its detail';
COMMENT ON VIEW es_retention_status IS 'rules of retention: what is due, what was removed, what holds them, errors';
COMMENT ON COLUMN es_retention_status.category IS 'category whose streams the rule is for';
COMMENT ON COLUMN es_retention_status.max_age IS 'age after which events are removed; null: no limit';
COMMENT ON COLUMN es_retention_status.max_count IS 'how many of a stream''s newest events are kept; null: no limit';
COMMENT ON COLUMN es_retention_status.max_lag IS 'how old the oldest unread event of a consumer may be for it to hold anything; null: any age';
COMMENT ON COLUMN es_retention_status.set_by IS 'role that set the rule';
COMMENT ON COLUMN es_retention_status.set_at IS 'when it was set';
COMMENT ON COLUMN es_retention_status.overdue IS 'events older than max_age still to be looked at, among the next 10,000; null: no max_age';
COMMENT ON COLUMN es_retention_status.unseen IS 'new events that the rule has still to look at, counted up to 10,000';
COMMENT ON COLUMN es_retention_status.removed IS 'how many events the rule has removed';
COMMENT ON COLUMN es_retention_status.held_by IS 'the projection, subscription or horizon that held it when it ran last; null: nothing did';
COMMENT ON COLUMN es_retention_status.held_position IS 'position above which it held events';
COMMENT ON COLUMN es_retention_status.held_since IS 'since when it has held them at that position';
COMMENT ON COLUMN es_retention_status.left_behind IS 'consumers that hold nothing any more, by max_lag';
COMMENT ON COLUMN es_retention_status.left_streams IS 'how many streams were locked or have a parked event, and are looked at again';
COMMENT ON COLUMN es_retention_status.tagged_streams IS 'how many streams are left since they have events with tags, counted up to 1000';
COMMENT ON COLUMN es_retention_status.last_error IS 'the last error; null: nothing is wrong';
COMMENT ON COLUMN es_retention_status.error_detail IS 'its detail';
COMMENT ON COLUMN es_retention_status.sqlstate IS 'its code';
COMMENT ON COLUMN es_retention_status.attempts IS 'how many runs have failed since the last success';
COMMENT ON COLUMN es_retention_status.failing_since IS 'when the first of them failed';
COMMENT ON COLUMN es_retention_status.ran_at IS 'when the rule ran last';
COMMENT ON COLUMN es_retention_status.next_run IS 'when a worker runs it next';
COMMENT ON FUNCTION es_set_retention(text, interval, bigint, interval) IS
    'sets the rule by which workers remove events of a category; without a limit it removes the rule';
COMMENT ON FUNCTION es_run_retention(text, boolean, boolean) IS
    'removes what the rules of retention allow, a part at a time; returns a row for each rule';

-- Streams of another store, which a store that was split has from before (doc/internals/slots.md).
CREATE FUNCTION es_remove_foreign_streams(
    after_position bigint DEFAULT 0, dry_run boolean DEFAULT false, force boolean DEFAULT false,
    OUT streams bigint, OUT events bigint, OUT "position" bigint, OUT held_by text, OUT more boolean)
    RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_remove_foreign_streams(bigint, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION es_remove_foreign_streams(bigint, boolean, boolean) IS
    'removes streams that are not in the slots of this store, a part at a time; returns how many, and where to go on';
