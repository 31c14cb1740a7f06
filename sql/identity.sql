-- Not dumped: what is restored is another instance.
CREATE TABLE es_identity (
    one      bool PRIMARY KEY DEFAULT true CHECK (one),
    instance uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
INSERT INTO es_identity DEFAULT VALUES;

-- Transactions that begin an incarnation side by side have an entry each. Nothing but
-- the key is unique, so that none of them waits for another.
CREATE TABLE es_incarnation_entries (
    number            bigint      NOT NULL CHECK (number >= 1),
    entry             uuid        NOT NULL,
    id                uuid        NOT NULL,
    began_at          timestamptz NOT NULL,
    position          bigint      NOT NULL CHECK (position >= 0),
    reason            text COLLATE "C" NOT NULL CHECK (reason IN ('created', 'restored', 'promoted', 'copied', 'reset')),
    store_id          uuid        NOT NULL,
    last_token        bigint      NOT NULL,
    instance          uuid        NOT NULL,
    system_identifier bigint      NOT NULL,
    timeline          int         NOT NULL,
    database          oid         NOT NULL,
    PRIMARY KEY (number, entry)
);
SELECT pg_catalog.pg_extension_config_dump('es_incarnation_entries', '');

CREATE VIEW es_incarnations AS
    SELECT DISTINCT ON (number) number, id, began_at, position, reason
      FROM es_incarnation_entries
     ORDER BY number, entry DESC;

CREATE FUNCTION es_store_id() RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_incarnation() RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_position_valid(incarnation uuid, "position" bigint) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE;
CREATE FUNCTION es_promote(OUT incarnation uuid, OUT "position" bigint) RETURNS record
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_promote() FROM PUBLIC;

COMMENT ON TABLE es_identity IS 'which instance of the extension this is; never dumped';
COMMENT ON COLUMN es_identity.one IS 'true: there is one row';
COMMENT ON COLUMN es_identity.instance IS 'made by CREATE EXTENSION; a copy of the database''s files has it, too';
COMMENT ON TABLE es_incarnation_entries IS 'entries of the transactions that began incarnations; es_incarnations has one row for each incarnation';
COMMENT ON COLUMN es_incarnation_entries.number IS 'number of the incarnation, from 1';
COMMENT ON COLUMN es_incarnation_entries.entry IS 'id of the entry';
COMMENT ON COLUMN es_incarnation_entries.id IS 'an id of the incarnation';
COMMENT ON COLUMN es_incarnation_entries.began_at IS 'when it began: at its first append or delivery';
COMMENT ON COLUMN es_incarnation_entries.position IS 'last position of the incarnation before; what was read up to there is the same in both';
COMMENT ON COLUMN es_incarnation_entries.reason IS 'created, restored, promoted, copied or reset';
COMMENT ON COLUMN es_incarnation_entries.store_id IS 'id of the store';
COMMENT ON COLUMN es_incarnation_entries.last_token IS 'last token of the incarnation before; it and those before it are void';
COMMENT ON COLUMN es_incarnation_entries.instance IS 'es_identity.instance then';
COMMENT ON COLUMN es_incarnation_entries.system_identifier IS 'system identifier of the cluster then';
COMMENT ON COLUMN es_incarnation_entries.timeline IS 'timeline of the cluster then';
COMMENT ON COLUMN es_incarnation_entries.database IS 'oid of the database then';
COMMENT ON VIEW es_incarnations IS 'incarnations of the store: parts of its history that belong to one copy each';
COMMENT ON COLUMN es_incarnations.number IS 'number of the incarnation, from 1';
COMMENT ON COLUMN es_incarnations.id IS 'its id, as es_incarnation() returns it';
COMMENT ON COLUMN es_incarnations.began_at IS 'when it began: at its first append or delivery';
COMMENT ON COLUMN es_incarnations.position IS 'last position of the incarnation before; what was read up to there is the same in both';
COMMENT ON COLUMN es_incarnations.reason IS 'created, restored (a dump), promoted (timeline, es_promote), copied or reset (emptied)';
COMMENT ON FUNCTION es_store_id() IS
    'returns the id of the store, which its copies have, too';
COMMENT ON FUNCTION es_incarnation() IS
    'returns the id of the incarnation in which the statement reads, to be kept beside a position';
COMMENT ON FUNCTION es_position_valid(uuid, bigint) IS
    'returns whether this log has everything up to the position as it was read in the incarnation';
COMMENT ON FUNCTION es_promote() IS
    'lets a logical replica, whose subscription has ended, take appends; begins an incarnation, and returns it and the last position';
