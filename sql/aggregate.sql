-- A cache, so it is not dumped. There is no unique key but the id, so that two
-- transactions that save the same snapshot do not wait for each other.
CREATE TABLE es_snapshots (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream      text COLLATE "C" NOT NULL,
    reducer     text COLLATE "C" NOT NULL,
    version     bigint      NOT NULL CHECK (version > 0),
    taken_by    es_role     NOT NULL,
    fingerprint bigint      NOT NULL,
    initial     bigint      NOT NULL,
    recorded_at timestamptz NOT NULL,
    state       jsonb,
    taken_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    of_tag      boolean     NOT NULL DEFAULT false,
    personal    boolean     NOT NULL DEFAULT false
);
-- Statistics would keep values that an erasure deletes.
ALTER TABLE es_snapshots ALTER state SET STATISTICS 0;
-- States have personal attributes in plaintext.
ALTER TABLE es_snapshots ENABLE ROW LEVEL SECURITY;
CREATE POLICY es_personal ON es_snapshots FOR SELECT
    USING (NOT personal OR has_function_privilege('es_sees_personal_data()'::regprocedure, 'EXECUTE'));
CREATE POLICY es_personal_delete ON es_snapshots FOR DELETE USING (true);
CREATE INDEX es_snapshots_stream_reducer_version_idx ON es_snapshots (stream, reducer, version);

CREATE FUNCTION es_state(
    stream text, reducer es_function, initial jsonb DEFAULT '{}', at_version bigint DEFAULT NULL,
    at_time timestamptz DEFAULT NULL, by_time text DEFAULT 'recorded',
    OUT state jsonb, OUT version bigint)
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_history(stream text, reducer es_function, initial jsonb DEFAULT '{}')
    RETURNS TABLE (version bigint, recorded_at timestamptz, type text, state jsonb)
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL UNSAFE;
CREATE FUNCTION es_snapshot(stream text, reducer es_function, initial jsonb DEFAULT '{}')
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION es_merge(state jsonb, event es_recorded_event)
    RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION es_last(state jsonb, event es_recorded_event)
    RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION es_reducer(schema regnamespace)
    RETURNS regprocedure AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION es_execute(
    stream text, decider es_function, command jsonb, reducer es_function,
    metadata jsonb DEFAULT NULL, expected es_expected_version DEFAULT 'any', initial jsonb DEFAULT '{}',
    OUT version bigint, OUT "position" bigint, OUT state jsonb, OUT events int)
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION es_decide(
    query jsonb, decider es_function, command jsonb, reducer es_function,
    metadata jsonb DEFAULT NULL, initial jsonb DEFAULT '{}',
    OUT first_position bigint, OUT "position" bigint, OUT state jsonb, OUT events int)
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION es_test_decider(
    reducer es_function, decider es_function, given jsonb, command jsonb,
    initial jsonb DEFAULT '{}', stream text DEFAULT 'test-1',
    OUT events jsonb, OUT state jsonb, OUT error text, OUT sqlstate text)
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE EXECUTE ON FUNCTION
    es_test_decider(es_function, es_function, jsonb, jsonb, jsonb, text),
    es_decide(jsonb, es_function, jsonb, es_function, jsonb, jsonb),
    es_snapshot(text, es_function, jsonb), es_reducer(regnamespace),
    es_execute(text, es_function, jsonb, es_function, jsonb, es_expected_version, jsonb)
    FROM PUBLIC;

COMMENT ON SEQUENCE es_snapshots_id_seq IS 'ids of snapshots';
COMMENT ON TABLE es_snapshots IS 'saved states of streams and tags, from which folds go on; a cache, whose rows can be deleted at any time';
COMMENT ON COLUMN es_snapshots.id IS 'number of the snapshot';
COMMENT ON COLUMN es_snapshots.stream IS 'the stream, or the tag';
COMMENT ON COLUMN es_snapshots.reducer IS 'signature of the reducer';
COMMENT ON COLUMN es_snapshots.version IS 'version of the last event in the state; its position, if the state is of a tag';
COMMENT ON COLUMN es_snapshots.taken_by IS 'role that folded it';
COMMENT ON COLUMN es_snapshots.fingerprint IS 'hash of what the reducer and the upcasters were made of';
COMMENT ON COLUMN es_snapshots.initial IS 'hash of the state before the first event; 0: null';
COMMENT ON COLUMN es_snapshots.recorded_at IS 'when the latest of its events was recorded';
COMMENT ON COLUMN es_snapshots.state IS 'the state; null: deleted';
COMMENT ON COLUMN es_snapshots.taken_at IS 'when it was saved';
COMMENT ON COLUMN es_snapshots.of_tag IS 'whether the state is that of the events with a tag';
COMMENT ON COLUMN es_snapshots.personal IS 'whether it has personal attributes; only a role that sees these sees the row';
COMMENT ON POLICY es_personal ON es_snapshots IS 'hides states that have personal attributes';
COMMENT ON POLICY es_personal_delete ON es_snapshots IS 'who may delete states may delete all';
COMMENT ON FUNCTION es_state(text, es_function, jsonb, bigint, timestamptz, text) IS
    'returns state and version of a stream: the fold of its events, all of them, up to a version or up to a time';
COMMENT ON FUNCTION es_history(text, es_function, jsonb) IS
    'returns the state of a stream after each of its events';
COMMENT ON FUNCTION es_snapshot(text, es_function, jsonb) IS
    'saves a snapshot of a stream''s state; returns its version';
COMMENT ON FUNCTION es_merge(jsonb, es_recorded_event) IS
    'reducer: merges the attributes of the event''s data into the state';
COMMENT ON FUNCTION es_last(jsonb, es_recorded_event) IS
    'reducer: takes the data of the last event as the state';
COMMENT ON FUNCTION es_reducer(regnamespace) IS
    'returns the reducer that calls apply_<type>(state jsonb, data jsonb) of a schema; creates it if it does not exist';
COMMENT ON FUNCTION es_execute(text, es_function, jsonb, es_function, jsonb, es_expected_version, jsonb) IS
    'decides a command on the state of a locked stream, and appends the events';
COMMENT ON FUNCTION es_decide(jsonb, es_function, jsonb, es_function, jsonb, jsonb) IS
    'decides a command on the state of the events that match a query, while no other can come, and appends the events';
COMMENT ON FUNCTION es_test_decider(es_function, es_function, jsonb, jsonb, jsonb, text) IS
    'decides a command on the state of given events; stores nothing';
