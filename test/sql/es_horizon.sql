-- es_horizon() as one session sees it; the races are in the isolation specs.
CREATE EXTENSION eventstore;

SELECT es_horizon();
SELECT position FROM es_append('a-1', 'none', 'x');
SELECT es_horizon();
-- A gap that a rollback has left is stable once no transaction can fill it.
BEGIN;
SELECT position FROM es_append('a-1', 1, 'x');
SELECT es_horizon();
ROLLBACK;
SELECT es_horizon();
SELECT position FROM es_append('a-1', 1, 'x');
SELECT es_horizon();
-- Within a transaction: what it appended, rolled back to a savepoint, appended again.
BEGIN;
SELECT position FROM es_append('a-2', 'none', 'x');
SAVEPOINT s;
SELECT position FROM es_append('a-2', 1, 'x');
SELECT es_horizon();
ROLLBACK TO s;
SELECT es_horizon();
SELECT position FROM es_append('a-2', 1, 'x');
SELECT es_horizon();
COMMIT;
SELECT es_horizon();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_horizon();
SELECT position FROM es_append('a-2', 2, 'x');
SELECT es_horizon();
COMMIT;
-- A statement works with its own snapshot: what it appends itself is not yet there.
SELECT (es_append('a-2', 3, 'x')).position, es_horizon();
SELECT es_horizon();

-- The cached value serves one snapshot and no other.
CREATE FUNCTION horizons() RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE result bigint[];
BEGIN
    FOR i IN 1 .. 3 LOOP
        PERFORM es_append('a-3', 'any', 'x');
        result := result || es_horizon();
        BEGIN
            PERFORM es_append('a-3', 'any', 'x');
            result := result || es_horizon();
            RAISE EXCEPTION 'caught';
        EXCEPTION WHEN raise_exception THEN
        END;
        result := result || es_horizon();
    END LOOP;
    RETURN result;
END $$;
SELECT horizons();
-- With one snapshot for a transaction it does not fall.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT horizons();
COMMIT;
SELECT es_horizon() = max(position) AS at_the_end FROM es_events;
-- Called once for each row it is computed once.
SELECT count(DISTINCT es_horizon()), count(*) = (SELECT count(*) FROM es_events) AS all_rows FROM es_events WHERE position <= es_horizon();
-- As a filter of many rows it must not be slow; as a bound it is in the index condition.
EXPLAIN (COSTS OFF) SELECT * FROM es_events WHERE position > 5 AND position <= es_horizon() ORDER BY position LIMIT 5;

DROP FUNCTION horizons;
DROP EXTENSION eventstore;
