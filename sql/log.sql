CREATE FUNCTION es_category(stream text) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE COST 100;

COMMENT ON FUNCTION es_category(text) IS
    'returns the category of a stream: the part of its name before the first -, all of it without one';

-- Categories as an argument: an array of text inside, or one name.  Columns are text[].
CREATE TYPE es_categories;

CREATE FUNCTION es_categories_in(cstring) RETURNS es_categories
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_categories_out(es_categories) RETURNS cstring
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_categories_recv(internal) RETURNS es_categories
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_categories_send(es_categories) RETURNS bytea
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;

CREATE TYPE es_categories (
    INPUT = es_categories_in,
    OUTPUT = es_categories_out,
    RECEIVE = es_categories_recv,
    SEND = es_categories_send,
    LIKE = pg_catalog._text
);

CREATE FUNCTION es_categories_from_texts(text[]) RETURNS es_categories
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_categories_from_bpchar(character) RETURNS es_categories
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_categories_texts(es_categories) RETURNS text[]
    AS 'MODULE_PATHNAME', 'es_categories_from_texts' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE CAST (text AS es_categories) WITH INOUT AS IMPLICIT;
CREATE CAST (varchar AS es_categories) WITH INOUT AS IMPLICIT;
CREATE CAST (name AS es_categories) WITH INOUT AS IMPLICIT;
CREATE CAST (character AS es_categories)
    WITH FUNCTION es_categories_from_bpchar(character) AS IMPLICIT;
CREATE CAST (varchar[] AS es_categories) WITH INOUT AS IMPLICIT;
CREATE CAST (text[] AS es_categories)
    WITH FUNCTION es_categories_from_texts(text[]) AS IMPLICIT;
CREATE CAST (es_categories AS text[])
    WITH FUNCTION es_categories_texts(es_categories) AS ASSIGNMENT;

COMMENT ON TYPE es_categories IS
    'categories as an argument: one name, or an array of names; not for columns';
COMMENT ON FUNCTION es_categories_in(cstring) IS 'I/O';
COMMENT ON FUNCTION es_categories_out(es_categories) IS 'I/O';
COMMENT ON FUNCTION es_categories_recv(internal) IS 'I/O';
COMMENT ON FUNCTION es_categories_send(es_categories) IS 'I/O';
COMMENT ON FUNCTION es_categories_from_texts(text[]) IS 'categories of an array of names';
COMMENT ON FUNCTION es_categories_from_bpchar(character) IS 'categories of a text';
COMMENT ON FUNCTION es_categories_texts(es_categories) IS 'the names of categories';

CREATE FUNCTION es_partition(stream text, partitions bigint) RETURNS int
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_partition(text, bigint) IS
    'returns the partition of a stream, from 0, among a number of partitions';

CREATE SEQUENCE es_position AS bigint CACHE 1;

-- Rows and keys come in ascending order, a few of them late: a fillfactor of 100 would
-- split full pages for those. A table that is only appended to is frozen once, soon
-- after, and not read again as a whole when its ids grow old.
CREATE TABLE es_events (
    position    bigint      NOT NULL PRIMARY KEY WITH (fillfactor = 98),
    version     bigint      NOT NULL,
    next_xid    xid8        NOT NULL,
    recorded_at timestamptz NOT NULL,
    occurred_at timestamptz,
    id          uuid        NOT NULL UNIQUE WITH (fillfactor = 98),
    stream      text COLLATE "C" NOT NULL,
    type        text COLLATE "C" NOT NULL,
    data        jsonb       NOT NULL,
    metadata    jsonb,
    tags        text[] COLLATE "C",
    body        bytea,
    UNIQUE (stream, version)
) WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0,
        autovacuum_vacuum_insert_threshold = 50000, autovacuum_vacuum_scale_factor = 0.1);
CREATE INDEX es_events_category_position_idx ON es_events (es_category(stream), position) WITH (fillfactor = 98);

SELECT pg_catalog.pg_extension_config_dump('es_events', '');
SELECT pg_catalog.pg_extension_config_dump('es_position', '');

-- A row that is inserted and not appended, for example from a dump, has a next_xid of
-- another cluster.
CREATE FUNCTION es_events_complete() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_events_complete() FROM PUBLIC;
CREATE TRIGGER es_events_complete BEFORE INSERT ON es_events
    FOR EACH ROW EXECUTE FUNCTION es_events_complete();
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_complete;

-- The log is only appended to.
CREATE FUNCTION es_events_refuse() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_events_refuse() FROM PUBLIC;
CREATE TRIGGER es_events_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON es_events
    FOR EACH STATEMENT EXECUTE FUNCTION es_events_refuse();
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_refuse;
-- A statement on a table that es_events inherits from fires triggers for rows alone.
CREATE TRIGGER es_events_refuse_row BEFORE UPDATE OR DELETE ON es_events
    FOR EACH ROW EXECUTE FUNCTION es_events_refuse();
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_refuse_row;

-- Which streams are of this store, where a log is spread over several: es_set_slots() makes a
-- trigger of this function, whose argument has the slots (src/log/slots.c).
CREATE FUNCTION es_events_accept() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
CREATE FUNCTION es_set_slots(slots int4multirange) RETURNS int
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_slots() RETURNS int4multirange
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
REVOKE EXECUTE ON FUNCTION es_events_accept(), es_set_slots(int4multirange) FROM PUBLIC;

COMMENT ON FUNCTION es_events_accept() IS 'trigger: refuses a row that is inserted, not appended, if its stream is not of this store';
COMMENT ON FUNCTION es_set_slots(int4multirange) IS
    'sets which of 1,024 slots of streams are of this store, which refuses to write to other streams from then on; returns how many';
COMMENT ON FUNCTION es_slots() IS
    'returns the slots of streams that are of this store; null if they were not set, and all are';

-- Which events have a tag: an index in the form of a table, made from es_events and so not
-- dumped (src/log/tag_entry.c).
CREATE TABLE es_tags (
    tag      text COLLATE "C" NOT NULL,
    position bigint           NOT NULL,
    type     text COLLATE "C" NOT NULL,
    PRIMARY KEY (tag, position) INCLUDE (type)
) WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0,
        autovacuum_vacuum_insert_threshold = 50000);

CREATE FUNCTION es_events_tag() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_events_tag() FROM PUBLIC;
CREATE TRIGGER es_events_tag AFTER INSERT ON es_events
    FOR EACH ROW WHEN (new.tags IS NOT NULL) EXECUTE FUNCTION es_events_tag();
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_tag;

CREATE FUNCTION es_reindex_tags(OUT added bigint, OUT removed bigint) RETURNS record
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_reindex_tags() FROM PUBLIC;

COMMENT ON TABLE es_tags IS 'which events have a tag; made from es_events, and not dumped';
COMMENT ON COLUMN es_tags.tag IS 'a tag';
COMMENT ON COLUMN es_tags.position IS 'position of an event that has it';
COMMENT ON COLUMN es_tags.type IS 'type of that event';
COMMENT ON FUNCTION es_events_tag() IS 'trigger: stores the tags of a row that is inserted, not appended';
COMMENT ON FUNCTION es_reindex_tags() IS
    'makes es_tags agree with es_events while appends go on; returns how many entries it has added and removed';
COMMENT ON SEQUENCE es_position IS 'positions of events in the log; CACHE must stay 1';
COMMENT ON TABLE es_events IS 'the log: every event, in one table; written by es_append, es_append_batch and es_import';
COMMENT ON COLUMN es_events.position IS 'number in the log; ascending, with gaps where appends were rolled back';
COMMENT ON COLUMN es_events.version IS 'number in the stream, from 1 without gaps';
COMMENT ON COLUMN es_events.next_xid IS 'next transaction id at a moment after the position was drawn, for es_horizon()';
COMMENT ON COLUMN es_events.recorded_at IS 'when the event was appended';
COMMENT ON COLUMN es_events.occurred_at IS 'when it happened, if the caller gave it';
COMMENT ON COLUMN es_events.id IS 'unique id: given by the caller, or a UUID of version 7';
COMMENT ON COLUMN es_events.stream IS 'stream''s name, category-id, of at most 2048 bytes';
COMMENT ON COLUMN es_events.type IS 'name of what happened, of at most 255 bytes';
COMMENT ON COLUMN es_events.data IS 'content of the event';
COMMENT ON COLUMN es_events.metadata IS 'an object with facts about the event: correlation, causation, user';
COMMENT ON COLUMN es_events.tags IS 'names of what the event is about, sorted and distinct; null: none';
COMMENT ON COLUMN es_events.body IS 'bytes that are not JSON; null: none';
COMMENT ON FUNCTION es_events_complete() IS 'trigger: gives a row that is inserted, not appended, a next_xid of this cluster';
COMMENT ON FUNCTION es_events_refuse() IS 'trigger: refuses to change or remove events';

-- The cost makes it the bound of an index scan instead of a filter for each row.
CREATE FUNCTION es_horizon() RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 1000;

COMMENT ON FUNCTION es_horizon() IS
    'returns the highest position up to which no event can appear any more, for the snapshot of the statement; 0 if there is none';

-- Not dumped, as it says nothing about another cluster.
CREATE TABLE es_published_horizon (
    position    bigint NOT NULL,
    incarnation uuid   NOT NULL,
    PRIMARY KEY (position, incarnation)
);

CREATE FUNCTION es_published_horizon_applied() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_published_horizon_applied() FROM PUBLIC;
CREATE TRIGGER es_published_horizon_applied AFTER INSERT OR UPDATE ON es_published_horizon
    FOR EACH ROW EXECUTE FUNCTION es_published_horizon_applied();
ALTER TABLE es_published_horizon ENABLE ALWAYS TRIGGER es_published_horizon_applied;

COMMENT ON TABLE es_published_horizon IS 'horizon that the workers of the primary publish for readers on standbys and logical replicas';
COMMENT ON COLUMN es_published_horizon.position IS 'a horizon of the primary: up to here no event can appear any more';
COMMENT ON COLUMN es_published_horizon.incarnation IS 'incarnation whose worker has found it';
COMMENT ON FUNCTION es_published_horizon_applied() IS 'trigger: lets a logical replica read on';

-- With it a retry of the append that stored an event is recognized after its data have
-- changed.
CREATE TABLE es_rewrites (
    position     bigint      PRIMARY KEY,
    rewritten_at timestamptz NOT NULL,
    rewritten_by name        NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('es_rewrites', '');

COMMENT ON TABLE es_rewrites IS 'events whose data were replaced by es_rewrite';
COMMENT ON COLUMN es_rewrites.position IS 'position of the event';
COMMENT ON COLUMN es_rewrites.rewritten_at IS 'when it was rewritten last';
COMMENT ON COLUMN es_rewrites.rewritten_by IS 'role that called es_rewrite last';

-- What was removed from the log (doc/internals/retention.md). A session knows whether the table has
-- a page, so that it must not lose its last one.
CREATE TABLE es_removals (
    id          bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    action      text COLLATE "C" NOT NULL CHECK (action IN ('delete', 'tombstone', 'truncate', 'compact', 'archive', 'unarchive', 'foreign')),
    stream      text COLLATE "C" NOT NULL,
    "position"  bigint,
    positions   int8multirange NOT NULL,
    versions    int8range   NOT NULL,
    removed     bigint      NOT NULL,
    horizon     bigint      NOT NULL,
    removed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    removed_by  name        NOT NULL DEFAULT session_user,
    metadata    jsonb
) WITH (vacuum_truncate = false);
CREATE INDEX es_removals_horizon_idx ON es_removals (horizon);
CREATE INDEX es_removals_position_idx ON es_removals ("position") WHERE "position" IS NOT NULL;
CREATE INDEX es_removals_stream_idx ON es_removals (stream, id);
-- What readers that remember events of a range must know of (src/read/partition_map.c).
CREATE INDEX es_removals_compact_idx ON es_removals ("position") WHERE action = 'compact';
CREATE INDEX es_removals_unarchive_idx ON es_removals USING gist (positions) WHERE action = 'unarchive';
SELECT pg_catalog.pg_extension_config_dump('es_removals', '');
SELECT pg_catalog.pg_extension_config_dump('es_removals_id_seq', '');

CREATE FUNCTION es_removals_changed() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_removals_changed() FROM PUBLIC;
CREATE TRIGGER es_removals_changed AFTER INSERT ON es_removals
    FOR EACH STATEMENT EXECUTE FUNCTION es_removals_changed();
ALTER TABLE es_removals ENABLE ALWAYS TRIGGER es_removals_changed;

-- With it a retry of an append is known whose events are gone.
CREATE TABLE es_removed_ids (
    id          uuid        PRIMARY KEY,
    stream      text COLLATE "C" NOT NULL,
    version     bigint      NOT NULL,
    "position"  bigint      NOT NULL,
    removed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (stream, version)
);
CREATE INDEX es_removed_ids_removed_at_idx ON es_removed_ids (removed_at);
SELECT pg_catalog.pg_extension_config_dump('es_removed_ids', '');

COMMENT ON TABLE es_removals IS 'what was removed from the log, compacted or archived, by whom, when and why';
COMMENT ON COLUMN es_removals.id IS 'number of the removal';
COMMENT ON COLUMN es_removals.action IS 'delete, tombstone, truncate, compact, archive, unarchive, or foreign: a stream of another store';
COMMENT ON COLUMN es_removals.stream IS 'stream that the events were in';
COMMENT ON COLUMN es_removals."position" IS 'position of the event that says so to readers; null: none does';
COMMENT ON COLUMN es_removals.positions IS 'positions of the events';
COMMENT ON COLUMN es_removals.versions IS 'versions of the events';
COMMENT ON COLUMN es_removals.removed IS 'how many events; of a compaction without the one that stays as es_compacted';
COMMENT ON COLUMN es_removals.horizon IS 'horizon at that time, which es_horizon() never goes below';
COMMENT ON COLUMN es_removals.removed_at IS 'when';
COMMENT ON COLUMN es_removals.removed_by IS 'role that called the function';
COMMENT ON COLUMN es_removals.metadata IS 'why, as the caller says; null: it does not';
COMMENT ON FUNCTION es_removals_changed() IS 'trigger: lets sessions know of the first removal';
COMMENT ON TABLE es_removed_ids IS 'ids of events that were removed, for eventstore.retry_window: a retry does not store them again';
COMMENT ON COLUMN es_removed_ids.id IS 'id of the event';
COMMENT ON COLUMN es_removed_ids.stream IS 'stream that it was in';
COMMENT ON COLUMN es_removed_ids.version IS 'its version there';
COMMENT ON COLUMN es_removed_ids."position" IS 'its position';
COMMENT ON COLUMN es_removed_ids.removed_at IS 'when it was removed';
COMMENT ON SEQUENCE es_removals_id_seq IS 'numbers of removals';
