-- Each function returns lines of TAP, as those of pgTAP do. The bodies are bound when the
-- extension is created, so that neither pgTAP nor eventstore need be in the search_path.

-- An event is as expected if it has the same type and data, and of all else what is expected.
CREATE FUNCTION es_tap_same_events(have jsonb, want jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN have IS NOT NULL AND jsonb_typeof(want) = 'array' AND jsonb_array_length(have) = jsonb_array_length(want)
   AND NOT EXISTS (
       SELECT FROM jsonb_array_elements(have) WITH ORDINALITY AS h (event, n)
         JOIN jsonb_array_elements(want) WITH ORDINALITY AS w (event, n) ON w.n = h.n
        WHERE h.event->'type' IS DISTINCT FROM w.event->'type'
           OR coalesce(h.event->'data', '{}') <> coalesce(w.event->'data', '{}')
           OR EXISTS (SELECT FROM jsonb_each(w.event) AS k (key, value)
                       WHERE k.key NOT IN ('type', 'data') AND h.event->k.key IS DISTINCT FROM k.value));

-- What has come instead.
CREATE FUNCTION es_tap_outcome(events jsonb, error text, sqlstate text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE WHEN events IS NULL THEN 'refused: ' || sqlstate || ' ' || error ELSE 'decided: ' || events::text END;

CREATE FUNCTION es_given(stream text, events jsonb) RETURNS SETOF text LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT diag(format('given: %s events of stream "%s", up to version %s', jsonb_array_length(events), stream, a.version))
      FROM es_append_batch(stream, 'any'::es_expected_version, events) a;
END;

CREATE FUNCTION es_decides(
    reducer text, decider text, given jsonb, command jsonb, want jsonb, description text DEFAULT NULL,
    initial jsonb DEFAULT '{}', stream text DEFAULT 'test-1')
    RETURNS text LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT ok(d.decides, coalesce(description, decider || ' decides'))
           || CASE WHEN d.decides THEN ''
                   ELSE E'\n' || diag('        have ' || es_tap_outcome(t.events, t.error, t.sqlstate)
                                      || E'\n        want decided: ' || want::text) END
      FROM es_test_decider(reducer::es_function, decider::es_function, given, command, initial, stream) t,
           LATERAL (SELECT es_tap_same_events(t.events, want)) AS d (decides);
END;

CREATE FUNCTION es_refuses(
    reducer text, decider text, given jsonb, command jsonb, errcode text DEFAULT NULL, errmsg text DEFAULT NULL,
    description text DEFAULT NULL, initial jsonb DEFAULT '{}', stream text DEFAULT 'test-1')
    RETURNS text LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT ok(r.refuses, coalesce(description, decider || ' refuses'))
           || CASE WHEN r.refuses THEN ''
                   ELSE E'\n' || diag('        have ' || es_tap_outcome(t.events, t.error, t.sqlstate)
                                      || E'\n        want refused: ' || concat_ws(' ', coalesce(errcode, 'any error'), errmsg)) END
      FROM es_test_decider(reducer::es_function, decider::es_function, given, command, initial, stream) t,
           LATERAL (SELECT t.sqlstate IS NOT NULL AND coalesce(t.sqlstate = errcode, true)
                           AND coalesce(t.error = errmsg, true)) AS r (refuses);
END;

-- Projections that are sync have taken effect by the append.
CREATE FUNCTION es_projects(
    projection text, stream text, given jsonb, have text, want text, description text DEFAULT NULL)
    RETURNS text LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT count(*) FROM es_append_batch(stream, 'any'::es_expected_version, given);
    SELECT es_run_projections(s.name) FROM es_projection_status s WHERE s.name = projection AND s.mode = 'async';
    SELECT CASE WHEN s.name IS NULL THEN
                ok(false, coalesce(description, projection || ' projects')) || E'\n' || diag('        there is no projection "' || projection || '"')
                WHEN s.last_error IS NOT NULL THEN
                ok(false, coalesce(description, projection || ' projects')) || E'\n' || diag('        it has failed: ' || s.last_error)
                ELSE results_eq(have, want, coalesce(description, projection || ' projects')) END
      FROM (VALUES (projection)) AS p (name) LEFT JOIN es_projection_status s ON s.name = p.name;
END;

COMMENT ON FUNCTION es_tap_same_events(jsonb, jsonb) IS 'returns true if decided events are as expected';
COMMENT ON FUNCTION es_tap_outcome(jsonb, text, text) IS 'describes the outcome of a decision';
COMMENT ON FUNCTION es_given(text, jsonb) IS 'appends events to a stream, for what the test does next';
COMMENT ON FUNCTION es_decides(text, text, jsonb, jsonb, jsonb, text, jsonb, text) IS 'tests that a command after given events decides these events';
COMMENT ON FUNCTION es_refuses(text, text, jsonb, jsonb, text, text, text, jsonb, text) IS 'tests that a command after given events is refused';
COMMENT ON FUNCTION es_projects(text, text, jsonb, text, text, text) IS 'tests what a query finds after a projection has handled given events';
