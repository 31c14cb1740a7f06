-- The cost makes it the bound of an index scan and not a filter of each row.
CREATE FUNCTION es_horizon() RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 1000;

COMMENT ON FUNCTION es_horizon() IS
    'highest position up to which nothing can appear any more, for the snapshot of the statement; 0 if there is none';

-- Not dumped: in another cluster nothing has been decided yet.
CREATE TABLE es_decided (
    position bigint PRIMARY KEY
);

COMMENT ON TABLE es_decided IS 'for readers on standbys: up to which position the workers of the primary have found nothing to be able to appear';
COMMENT ON COLUMN es_decided.position IS 'a horizon of the primary, written where a standby could not find it by itself';

INSERT INTO es_decided VALUES (0);
