-- A cache, so it is not dumped. There is no unique key but the id, so that
-- nobody waits for one who keeps the same.
CREATE TABLE es_snapshots (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream      text COLLATE "C" NOT NULL,
    reducer     text COLLATE "C" NOT NULL,
    version     bigint      NOT NULL CHECK (version > 0),
    taken_by    name        NOT NULL,
    fingerprint bigint      NOT NULL,
    initial     bigint      NOT NULL,
    recorded_at timestamptz NOT NULL,
    state       jsonb,
    taken_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX es_snapshots_stream_reducer_version_idx ON es_snapshots (stream, reducer, version);

CREATE FUNCTION es_state(
    stream text, reducer regprocedure, initial jsonb DEFAULT '{}', at_version bigint DEFAULT NULL,
    at_time timestamptz DEFAULT NULL, by_time text DEFAULT 'recorded',
    OUT state jsonb, OUT version bigint)
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_history(stream text, reducer regprocedure, initial jsonb DEFAULT '{}')
    RETURNS TABLE (version bigint, recorded_at timestamptz, type text, state jsonb)
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL UNSAFE;
CREATE FUNCTION es_snapshot(stream text, reducer regprocedure, initial jsonb DEFAULT '{}')
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION es_merge(state jsonb, event es_events)
    RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION es_last(state jsonb, event es_events)
    RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION es_reducer(schema regnamespace)
    RETURNS regprocedure AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

CREATE FUNCTION es_execute(
    stream text, decider regprocedure, command jsonb, reducer regprocedure,
    metadata jsonb DEFAULT NULL, expected es_expected_version DEFAULT 'any',
    OUT version bigint, OUT "position" bigint, OUT state jsonb, OUT events int)
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE EXECUTE ON FUNCTION
    es_snapshot(text, regprocedure, jsonb), es_reducer(regnamespace),
    es_execute(text, regprocedure, jsonb, regprocedure, jsonb, es_expected_version)
    FROM PUBLIC;

COMMENT ON SEQUENCE es_snapshots_id_seq IS 'ids of snapshots';
COMMENT ON TABLE es_snapshots IS 'states of streams that are kept, so that a fold can go on from them: a cache, to be deleted freely';
COMMENT ON COLUMN es_snapshots.id IS 'a number';
COMMENT ON COLUMN es_snapshots.stream IS 'the stream';
COMMENT ON COLUMN es_snapshots.reducer IS 'signature of the reducer';
COMMENT ON COLUMN es_snapshots.version IS 'the last event in the state';
COMMENT ON COLUMN es_snapshots.taken_by IS 'role that has folded it';
COMMENT ON COLUMN es_snapshots.fingerprint IS 'a hash of what the reducer was made of, and the upcasters';
COMMENT ON COLUMN es_snapshots.initial IS 'a hash of the state before the first event; 0: null';
COMMENT ON COLUMN es_snapshots.recorded_at IS 'when the latest of its events was recorded';
COMMENT ON COLUMN es_snapshots.state IS 'the state; null: deleted';
COMMENT ON COLUMN es_snapshots.taken_at IS 'when it was kept';
COMMENT ON FUNCTION es_state(text, regprocedure, jsonb, bigint, timestamptz, text) IS
    'state and version of a stream: the fold of its events, all of them, up to a version or up to a time';
COMMENT ON FUNCTION es_history(text, regprocedure, jsonb) IS
    'state of a stream after each of its events';
COMMENT ON FUNCTION es_snapshot(text, regprocedure, jsonb) IS
    'keeps the state of a stream, and returns its version';
COMMENT ON FUNCTION es_merge(jsonb, es_events) IS
    'reducer: the state with the attributes of the event''s data';
COMMENT ON FUNCTION es_last(jsonb, es_events) IS
    'reducer: the data of the last event';
COMMENT ON FUNCTION es_reducer(regnamespace) IS
    'reducer that calls apply_<type>(state jsonb, data jsonb) of a schema; it is made if it is not there';
COMMENT ON FUNCTION es_execute(text, regprocedure, jsonb, regprocedure, jsonb, es_expected_version) IS
    'lets a decider turn a command into events, on the state of a stream that nobody else can append to meanwhile, and appends them';
