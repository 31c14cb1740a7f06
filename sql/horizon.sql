-- The cost makes it the bound of an index scan and not a filter of each row.
CREATE FUNCTION es_horizon() RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 1000;

COMMENT ON FUNCTION es_horizon() IS
    'highest position up to which nothing can appear any more, for the snapshot of the statement; 0 if there is none';
