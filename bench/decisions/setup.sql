-- The stores whose decisions are measured. The decision is always the same: a course has a number
-- of seats, and a student takes part in at most 100 courses. So it reads the events of the course
-- and those of the student. Of each store that is not ours, ..._enrol decides in one call. The
-- other way is two calls, and the client decides between them: it reads the same events, and
-- ..._append_if appends if no other one has come after the last one that was read. SERIALIZABLE
-- has no such way: a read in a transaction of its own misses events that are not committed yet,
-- and no later check sees those that lie below the last one that was read.
CREATE EXTENSION eventstore;

-- For es_decide: the state knows whom the command is about.
CREATE FUNCTION count_enrolments(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.type = 'offered' THEN
        RETURN state || event.data;
    END IF;
    RETURN state || jsonb_build_object(
        'students', (state->>'students')::int + (state->>'course' = ANY (event.tags))::int,
        'courses', (state->>'courses')::int + (state->>'student' = ANY (event.tags))::int);
END $$;
CREATE FUNCTION decide_enrolment(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF (state->>'students')::int < (state->>'seats')::int AND (state->>'courses')::int < 100 THEN
        RETURN jsonb_build_array(jsonb_build_object('type', 'enrolled', 'data', '{"by": "web"}'::jsonb,
            'tags', jsonb_build_array(command->'course', command->'student')));
    END IF;
    RETURN '[]';
END $$;

-- One lock for all appends, and a table of tags in the order of positions. The holder of the
-- lock draws the next position.
CREATE TABLE lock_events (
    position bigserial PRIMARY KEY, type text NOT NULL, data jsonb NOT NULL, tags text[] COLLATE "C" NOT NULL);
CREATE TABLE lock_tags (tag text COLLATE "C", position bigint, PRIMARY KEY (tag, position));

CREATE FUNCTION lock_enrol(course text, student text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    seen record;
    own bigint;
BEGIN
    LOCK TABLE lock_events IN EXCLUSIVE MODE;
    SELECT max((e.data->>'seats')::int) AS seats,
           count(*) FILTER (WHERE e.type = 'enrolled' AND t.tag = course) AS students,
           count(*) FILTER (WHERE e.type = 'enrolled' AND t.tag = student) AS courses
      INTO seen FROM lock_tags t JOIN lock_events e USING (position)
     WHERE t.tag IN (course, student) AND (e.type = 'enrolled' OR e.type = 'offered' AND t.tag = course);
    IF seen.students < seen.seats AND seen.courses < 100 THEN
        INSERT INTO lock_events (type, data, tags) VALUES ('enrolled', '{"by": "web"}', ARRAY[course, student])
            RETURNING position INTO own;
        INSERT INTO lock_tags VALUES (course, own), (student, own);
    END IF;
    RETURN own;
END $$;

CREATE FUNCTION lock_append_if(course text, student text, after bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    own bigint;
BEGIN
    LOCK TABLE lock_events IN EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM lock_tags t JOIN lock_events e USING (position)
                WHERE t.tag IN (course, student) AND t.position > after
                  AND (e.type = 'enrolled' OR e.type = 'offered' AND t.tag = course)) THEN
        RAISE EXCEPTION 'another event has come' USING ERRCODE = 'ES007';
    END IF;
    INSERT INTO lock_events (type, data, tags) VALUES ('enrolled', '{"by": "web"}', ARRAY[course, student])
        RETURNING position INTO own;
    INSERT INTO lock_tags VALUES (course, own), (student, own);
    RETURN own;
END $$;

-- SERIALIZABLE, and a GIN index on the tags. With fastupdate the index would be locked as a
-- whole, and any two appends would be in conflict.
CREATE TABLE serializable_events (
    position bigserial PRIMARY KEY, type text NOT NULL, data jsonb NOT NULL, tags text[] COLLATE "C" NOT NULL);
CREATE INDEX serializable_tags ON serializable_events USING gin (tags) WITH (fastupdate = off);

CREATE FUNCTION serializable_enrol(course text, student text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    seen record;
    own bigint;
BEGIN
    SELECT max((data->>'seats')::int) AS seats,
           count(*) FILTER (WHERE type = 'enrolled' AND course = ANY (tags)) AS students,
           count(*) FILTER (WHERE type = 'enrolled' AND student = ANY (tags)) AS courses
      INTO seen FROM serializable_events
     WHERE tags && ARRAY[course, student] AND (type = 'enrolled' OR type = 'offered' AND course = ANY (tags));
    IF seen.students < seen.seats AND seen.courses < 100 THEN
        INSERT INTO serializable_events (type, data, tags) VALUES ('enrolled', '{"by": "web"}', ARRAY[course, student])
            RETURNING position INTO own;
    END IF;
    RETURN own;
END $$;

-- An advisory lock for each type and tag: exclusive for an event that comes, shared for one
-- that is only read. Each query has types and tags.
CREATE TABLE advisory_events (
    position bigserial PRIMARY KEY, type text NOT NULL, data jsonb NOT NULL, tags text[] COLLATE "C" NOT NULL);
CREATE TABLE advisory_tags (
    tag text COLLATE "C", type text COLLATE "C", position bigint, PRIMARY KEY (tag, type, position));

-- In one order for everybody. A reader's barrier takes all of them in share mode.
CREATE FUNCTION advisory_lock(course text, student text, to_append boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wish record;
BEGIN
    FOR wish IN
        SELECT hashtextextended(name, 0) AS key, exclusive AND to_append AS exclusive
          FROM (VALUES ('enrolled ' || course, true), ('enrolled ' || student, true), ('offered ' || course, false)) AS w (name, exclusive)
         ORDER BY 1
    LOOP
        IF wish.exclusive THEN
            PERFORM pg_advisory_xact_lock(wish.key);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(wish.key);
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION advisory_read(course text, student text)
    RETURNS TABLE (own bigint, kind text, content jsonb, names text[]) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM advisory_lock(course, student, false);
    RETURN QUERY
        SELECT e.position, e.type, e.data, e.tags FROM advisory_events e
         WHERE e.position IN (SELECT t.position FROM advisory_tags t
                               WHERE (t.tag, t.type) IN ((course, 'enrolled'), (student, 'enrolled'), (course, 'offered')))
         ORDER BY e.position;
END $$;

CREATE FUNCTION advisory_enrol(course text, student text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    seen record;
    own bigint;
BEGIN
    PERFORM advisory_lock(course, student, true);
    SELECT max((e.data->>'seats')::int) AS seats,
           count(*) FILTER (WHERE t.type = 'enrolled' AND t.tag = course) AS students,
           count(*) FILTER (WHERE t.type = 'enrolled' AND t.tag = student) AS courses
      INTO seen FROM advisory_tags t JOIN advisory_events e USING (position)
     WHERE (t.tag, t.type) IN ((course, 'enrolled'), (student, 'enrolled'), (course, 'offered'));
    IF seen.students < seen.seats AND seen.courses < 100 THEN
        INSERT INTO advisory_events (type, data, tags) VALUES ('enrolled', '{"by": "web"}', ARRAY[course, student])
            RETURNING position INTO own;
        INSERT INTO advisory_tags VALUES (course, 'enrolled', own), (student, 'enrolled', own);
    END IF;
    RETURN own;
END $$;

CREATE FUNCTION advisory_append_if(course text, student text, after bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    own bigint;
BEGIN
    PERFORM advisory_lock(course, student, true);
    IF EXISTS (SELECT FROM advisory_tags
                WHERE (tag, type) IN ((course, 'enrolled'), (student, 'enrolled'), (course, 'offered')) AND position > after) THEN
        RAISE EXCEPTION 'another event has come' USING ERRCODE = 'ES007';
    END IF;
    INSERT INTO advisory_events (type, data, tags) VALUES ('enrolled', '{"by": "web"}', ARRAY[course, student])
        RETURNING position INTO own;
    INSERT INTO advisory_tags VALUES (course, 'enrolled', own), (student, 'enrolled', own);
    RETURN own;
END $$;
