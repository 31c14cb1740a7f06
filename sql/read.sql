-- Plain SQL with the caller's rights, in a form that the planner inlines: no
-- SECURITY DEFINER, no SET, not STRICT, and no LIMIT, which would keep an
-- outer WHERE outside.  Versions have no gaps, so that a count is a bound.
CREATE FUNCTION es_load(stream text, after_version bigint DEFAULT 0, max_count bigint DEFAULT NULL)
    RETURNS SETOF es_events LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT e.*
      FROM es_events e
     WHERE e.stream = es_load.stream
       AND e.version > greatest(after_version, 0)
       AND e.version <= greatest(after_version, 0)
                        + least(max_count, 9223372036854775807 - greatest(after_version, 0))
     ORDER BY e.version;
END;

CREATE FUNCTION es_load_backward(stream text, before_version bigint DEFAULT NULL, max_count bigint DEFAULT NULL)
    RETURNS SETOF es_events LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT e.*
      FROM es_events e
     WHERE e.stream = es_load_backward.stream
       AND e.version < coalesce(before_version, 9223372036854775807)
       AND e.version > CASE WHEN max_count IS NULL THEN 0
                       ELSE (SELECT coalesce(max(l.version), 0)
                               FROM es_events l
                              WHERE l.stream = es_load_backward.stream
                                AND l.version < coalesce(before_version, 9223372036854775807))
                            - greatest(max_count, 0) END
     ORDER BY e.version DESC;
END;

CREATE FUNCTION es_stream_version(stream text) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((SELECT max(e.version) FROM es_events e WHERE e.stream = es_stream_version.stream), 0);

CREATE FUNCTION es_event(id uuid) RETURNS es_events
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT e.* FROM es_events e WHERE e.id = es_event.id;
END;
