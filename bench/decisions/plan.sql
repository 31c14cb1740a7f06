-- The events that all stores are filled with, and in which order: students who have enrolled in
-- courses of the past, and then courses that are offered.
--
-- Of 20,000 events, 20 each belong to 1,000 courses, and 5 each to 4,000 students. Courses and
-- students of the past have even numbers. Decisions are about odd ones, whose tags lie among
-- the others in every index.
CREATE OR REPLACE FUNCTION pg_temp.plan(first bigint, last bigint)
    RETURNS TABLE (i bigint, course text, student text) STABLE LANGUAGE sql AS $$
SELECT i,
       'course:' || 2 * (i / 20000 * 1000 + i % 1000 + 1),
       'student:' || 2 * (i / 5000 * 1000 + (i + i / 1000 * 37) % 1000 + 1)
  FROM generate_series(first, last) AS i
$$;

CREATE OR REPLACE FUNCTION pg_temp.offers()
    RETURNS TABLE (course text) STABLE LANGUAGE sql AS $$
SELECT 'course:' || i FROM generate_series(1, 19999, 2) AS i
$$;
