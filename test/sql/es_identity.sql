-- Which store this is, and in which incarnation: es_store_id(), es_incarnation(),
-- es_incarnations, es_position_valid(). Copies are played here by changing the marks of
-- the last entry; a new session looks at them again. test/t/120_identity.pl makes real ones.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
CREATE TABLE seen (n int, id uuid, position bigint);

-- a new store has an id, and so has its first incarnation, before anything is appended
SELECT es_store_id() IS NOT NULL AS has_id, es_store_id() = es_store_id() AS same, es_incarnation() = es_store_id() AS first;
SELECT * FROM es_incarnations;
INSERT INTO seen SELECT 0, es_incarnation(), 0;
\c
SET client_min_messages = warning;
SELECT es_store_id() = id AS still FROM seen;

-- a subscription on an empty log begins nothing
SELECT es_create_subscription('s', lease => '1 hour');
SELECT count(*) FROM es_poll('s');
SELECT * FROM es_incarnations;

-- what is rolled back begins nothing; nor does a refused append
BEGIN;
SELECT version FROM es_append('a-1', 'none', 'x');
SELECT number, position, reason FROM es_incarnations;
SELECT version FROM es_append('a-1', 1, 'x');
SELECT count(*) FROM es_incarnation_entries;
ROLLBACK;
SELECT * FROM es_incarnations;
\set VERBOSITY sqlstate
SELECT es_append('a-1', 3, 'x');
\set VERBOSITY default
SELECT * FROM es_incarnations;
BEGIN;
SAVEPOINT one;
SELECT version FROM es_append('a-1', 'none', 'x');
ROLLBACK TO one;
SELECT version FROM es_append('a-2', 'none', 'x');
COMMIT;
SELECT number, id = (SELECT id FROM seen) AS same_id, position, reason FROM es_incarnations;
SELECT es_incarnation() = id AS same, es_store_id() = id AS store FROM seen;

-- every way to append begins one that is due; nobody writes an entry twice
SELECT version FROM es_append('a-2', 1, 'x');
SELECT version FROM es_append_batch('a-3', 'any', '[{"type": "x"}, {"type": "x"}]');
INSERT INTO es_import (stream, type) VALUES ('a-4', 'x');
SELECT count(*) FROM es_incarnation_entries;
CREATE FUNCTION last_position() RETURNS bigint STABLE LANGUAGE sql RETURN (SELECT max(position) FROM es_events);
INSERT INTO seen SELECT 1, es_incarnation(), last_position();

--
-- Positions
--
SELECT es_position_valid(id, position) AS last, es_position_valid(id, position + 1) AS beyond, es_position_valid(id, 1) AS first,
       es_position_valid(id, 9223372036854775807) AS greatest FROM seen WHERE n = 1;
-- at the beginning nothing was read, in whatever incarnation
SELECT es_position_valid(id, 0), es_position_valid(NULL, 0), es_position_valid('11111111-1111-4111-8111-111111111111', 0) FROM seen WHERE n = 1;
-- an incarnation that this store never had, and none at all
SELECT es_position_valid('11111111-1111-4111-8111-111111111111', 1), es_position_valid(NULL, 1);
SELECT es_position_valid(id, -1) FROM seen WHERE n = 1;
SELECT es_position_valid(id, NULL) FROM seen WHERE n = 1;

-- a statement reads the incarnation of the events that it reads
SELECT count(*), count(DISTINCT i) AS incarnations, bool_and(es_position_valid(i, position)) AS valid
  FROM (SELECT position, es_incarnation() AS i FROM es_read()) AS e;

--
-- Copies, each played by a mark that differs
--
CREATE FUNCTION play(why text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE why
        WHEN 'restored' THEN UPDATE es_identity SET instance = gen_random_uuid();
        WHEN 'promoted' THEN UPDATE es_incarnation_entries SET timeline = timeline + 1;
        WHEN 'copied to another database' THEN UPDATE es_incarnation_entries SET database = 1;
        WHEN 'copied to another cluster' THEN UPDATE es_incarnation_entries SET system_identifier = 1;
    END CASE;
END $$;

-- The original goes on: its consumer is two positions ahead of the copy.
CREATE PROCEDURE is_copied(why text, nr int) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM play(why);
    INSERT INTO seen SELECT nr, es_incarnation(), last_position() + 2;
END $$;
CALL is_copied('restored', 2);
\c
SET client_min_messages = warning;
-- before anything is appended, and after
SELECT max(number) AS number FROM es_incarnations;
SELECT n, es_position_valid(id, position) AS ahead, es_position_valid(id, position - 2) AS before FROM seen WHERE n > 0 ORDER BY n;
SELECT version FROM es_append('b-1', 'none', 'x');
SELECT version FROM es_append('b-1', 1, 'x');
SELECT version FROM es_append('b-1', 2, 'x');
SELECT number, position = (SELECT position - 2 FROM seen WHERE n = 2) AS at, reason FROM es_incarnations ORDER BY number;
SELECT n, es_position_valid(id, position) AS ahead, es_position_valid(id, position - 2) AS before FROM seen WHERE n > 0 ORDER BY n;
SELECT es_position_valid(es_incarnation(), last_position()), es_store_id() = (SELECT id FROM seen WHERE n = 0) AS same_store,
       es_incarnation() <> (SELECT id FROM seen WHERE n = 2) AS other_incarnation;

CALL is_copied('promoted', 3);
\c
SET client_min_messages = warning;
SELECT es_position_valid(id, position) AS ahead, es_position_valid(id, position - 2) AS before FROM seen WHERE n = 3;
SELECT version FROM es_append('b-2', 'none', 'x'), generate_series(1, 3);
CALL is_copied('copied to another database', 4);
\c
SET client_min_messages = warning;
INSERT INTO es_import (stream, type) SELECT 'b-3', 'x' FROM generate_series(1, 3);
CALL is_copied('copied to another cluster', 5);
\c
SET client_min_messages = warning;
SELECT version FROM es_append_batch('b-4', 'none', '[{"type": "x"}, {"type": "x"}, {"type": "x"}]');
SELECT number, reason FROM es_incarnations ORDER BY number;
SELECT n, es_position_valid(id, position) AS ahead, es_position_valid(id, position - 2) AS before,
       es_position_valid(es_incarnation(), position) AS now FROM seen WHERE n > 0 ORDER BY n;

-- a session that knows the incarnation writes nothing more, nor does a new one
SELECT version FROM es_append('b-5', 'none', 'x');
\c
SET client_min_messages = warning;
SELECT version FROM es_append('b-5', 1, 'x');
SELECT count(*) FROM es_incarnation_entries;

--
-- Who may
--
CREATE ROLE es_identity_nobody;
SET ROLE es_identity_nobody;
SELECT es_store_id() IS NOT NULL, es_incarnation() IS NOT NULL, es_position_valid(es_incarnation(), 1);
SELECT * FROM es_incarnations;
SELECT * FROM es_incarnation_entries;
SELECT * FROM es_identity;
RESET ROLE;
SELECT es_grant('es_identity_nobody', 'reader');
SET ROLE es_identity_nobody;
SELECT count(*) FROM es_incarnations;
SELECT count(*) FROM es_incarnation_entries;
RESET ROLE;
SELECT es_revoke('es_identity_nobody', 'reader');
SELECT es_grant('es_identity_nobody', 'writer');
-- a writer begins an incarnation, although it may not touch the table
CALL is_copied('promoted', 6);
\c
SET client_min_messages = warning;
SET ROLE es_identity_nobody;
SELECT version FROM es_append('c-1', 'none', 'x');
RESET ROLE;
SELECT max(number) AS number FROM es_incarnations;

-- in a transaction whose snapshot is old
CALL is_copied('promoted', 7);
\c
SET client_min_messages = warning;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM es_incarnations;
SELECT version FROM es_append('c-2', 'none', 'x');
SELECT version FROM es_append('c-2', 1, 'x');
COMMIT;
SELECT number, reason, count(*) FROM es_incarnation_entries GROUP BY 1, 2 ORDER BY 1 DESC LIMIT 2;

DROP EXTENSION eventstore CASCADE;
DROP TABLE seen;
DROP FUNCTION play;
DROP PROCEDURE is_copied;
DROP OWNED BY es_identity_nobody;
DROP ROLE es_identity_nobody;
