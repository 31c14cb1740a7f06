-- es_rebuild_projection and foreign keys: a key acts only on rows that refer to a value
-- that is gone. Rows that refer to what stays are not touched, whatever the rows of the
-- read model have exchanged.
CREATE EXTENSION eventstore;
SET client_min_messages = warning;

--
-- Every action, random rows: the read model becomes the fold of the log, and tables that
-- refer to it become what the rule says
--
-- The fold is the table fold; the old rows are what is put into person.
CREATE TABLE fold (id int PRIMARY KEY, name text NOT NULL UNIQUE, place int UNIQUE, boss int);
CREATE TABLE person (id int PRIMARY KEY, name text NOT NULL UNIQUE, place int UNIQUE, boss int REFERENCES person ON DELETE CASCADE);
CREATE TABLE pet (id int PRIMARY KEY, owner int NOT NULL REFERENCES person ON DELETE CASCADE,
                  owner_name text REFERENCES person (name) ON UPDATE CASCADE ON DELETE CASCADE);
CREATE FUNCTION fill(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO person SELECT f.id, f.name, f.place, f.boss FROM fold f;
    INSERT INTO pet SELECT p.id + 100, p.id, p.name FROM person p;
$$;
SELECT es_append('fold-1', 'none', 'folded') IS NOT NULL AS appended;
SELECT es_create_projection('person', 'fill(es_recorded_event)', tables => '{pet,person}', category => 'fold');
-- Tables that refer to it, one for each action and each of its keys; n is the row's own.
CREATE TABLE refers AS
SELECT format('by_%s_%s', key, replace(lower(action), ' ', '_')) AS name, key, action
  FROM unnest('{id,name,place}'::text[]) AS key, unnest('{CASCADE,SET NULL,SET DEFAULT,NO ACTION,RESTRICT}'::text[]) AS action;
DO $$
DECLARE
    r refers;
BEGIN
    FOR r IN TABLE refers LOOP
        EXECUTE format('CREATE TABLE %I (n int, ref %s DEFAULT %L REFERENCES person (%I) ON UPDATE %s ON DELETE %s)',
                       r.name, CASE r.key WHEN 'name' THEN 'text' ELSE 'int' END, '1', r.key, r.action, r.action);
    END LOOP;
END $$;
-- What a row that refers to a value becomes, as (there, value).
CREATE FUNCTION expected(key text, action text, value text, OUT there boolean, OUT becomes text) LANGUAGE plpgsql AS $$
DECLARE
    successor text;
    found_new boolean;
BEGIN
    EXECUTE format('SELECT true FROM fold WHERE %I::text = $1', key) INTO there USING value;
    becomes := value;
    IF there THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT true, f.%1$I::text FROM before b JOIN fold f USING (id) WHERE b.%1$I::text = $1', key)
        INTO found_new, successor USING value;
    there := action <> 'CASCADE' OR found_new;
    becomes := CASE action WHEN 'SET NULL' THEN NULL WHEN 'SET DEFAULT' THEN '1' ELSE successor END;
END $$;
CREATE TABLE before (LIKE person);
CREATE TABLE expect (name text, n int, becomes text);
CREATE TABLE wrong (round int, name text, difference text);
-- 1 is always there, as the default refers to it; of the others some are missing, and
-- names and places are exchanged.
CREATE FUNCTION fill_randomly(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($sql$
        INSERT INTO %s
        WITH ids AS (SELECT i, row_number() OVER () AS nr FROM generate_series(2, 9) AS i WHERE random() < 0.7),
             names AS (SELECT i::text AS name, row_number() OVER (ORDER BY random()) AS nr FROM generate_series(2, 9) AS i),
             places AS (SELECT i AS place, row_number() OVER (ORDER BY random()) AS nr FROM generate_series(2, 9) AS i)
        SELECT 1, '1', 1, NULL
        UNION ALL
        SELECT i, name, CASE WHEN random() < 0.9 THEN place END, CASE WHEN random() < 0.3 THEN 1 END
          FROM ids JOIN names USING (nr) JOIN places USING (nr)
    $sql$, target);
END $$;
-- Rows that NO ACTION and RESTRICT refer to must stay, or the rebuild fails.
CREATE FUNCTION refer_randomly() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r refers;
BEGIN
    FOR r IN TABLE refers LOOP
        EXECUTE format('INSERT INTO %I SELECT id, %I FROM person p'
                       ' WHERE random() < 0.8 AND ($1 OR %2$I IS NULL OR %2$I IN (SELECT %2$I FROM fold))', r.name, r.key)
          USING r.action IN ('CASCADE', 'SET NULL', 'SET DEFAULT');
        EXECUTE format('INSERT INTO expect SELECT %L, n, CASE WHEN ref IS NOT NULL THEN e.becomes END'
                       ' FROM %1$I CROSS JOIN expected(%2$L, %3$L, ref::text) e WHERE e.there OR ref IS NULL', r.name, r.key, r.action);
    END LOOP;
END $$;
CREATE FUNCTION compare(round int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    r refers;
BEGIN
    INSERT INTO wrong SELECT round, 'person', q::text
      FROM ((TABLE person EXCEPT TABLE fold) UNION ALL (TABLE fold EXCEPT TABLE person)) q;
    INSERT INTO wrong SELECT round, 'pet', q::text
      FROM ((TABLE pet EXCEPT SELECT id + 100, id, name FROM fold) UNION ALL (SELECT id + 100, id, name FROM fold EXCEPT TABLE pet)) q;
    FOR r IN TABLE refers LOOP
        EXECUTE format('INSERT INTO wrong SELECT $1, %L, q::text'
                       ' FROM ((SELECT n, ref::text FROM %1$I EXCEPT SELECT n, becomes FROM expect WHERE name = %1$L)'
                       ' UNION ALL (SELECT n, becomes FROM expect WHERE name = %1$L EXCEPT SELECT n, ref::text FROM %1$I)) q', r.name)
          USING round;
    END LOOP;
END $$;
CREATE PROCEDURE play(rounds int) LANGUAGE plpgsql AS $$
DECLARE
    r refers;
BEGIN
    FOR round IN 1 .. rounds LOOP
        FOR r IN TABLE refers LOOP
            EXECUTE format('DELETE FROM %I', r.name);
        END LOOP;
        DELETE FROM person;
        TRUNCATE fold, before, expect;
        PERFORM fill_randomly('fold'), fill_randomly('before');
        INSERT INTO person TABLE before;
        INSERT INTO pet SELECT id + 100, id, name FROM person WHERE random() < 0.8;
        PERFORM refer_randomly();
        COMMIT;
        PERFORM es_rebuild_projection('person');
        PERFORM compare(round);
        COMMIT;
    END LOOP;
END $$;
SELECT setseed(0.42) IS NOT NULL AS seeded;
CALL play(50);
SELECT * FROM wrong ORDER BY round, name, difference LIMIT 20;
-- A row that refers to a value that is gone by NO ACTION or RESTRICT: the rebuild fails, and
-- changes nothing.
CREATE FUNCTION counts() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(id || ' ' || name, ', ' ORDER BY id) || '; ' || (SELECT string_agg(n || ' ' || ref, ', ') FROM by_id_no_action) FROM person $$;
DO $$
DECLARE
    r refers;
BEGIN
    FOR r IN TABLE refers LOOP
        EXECUTE format('DELETE FROM %I', r.name);
    END LOOP;
END $$;
DELETE FROM person WHERE id > 1;
INSERT INTO person VALUES (20, 'gone');
INSERT INTO by_id_no_action VALUES (1, 20);
SELECT es_rebuild_projection('person');
SELECT counts();
DELETE FROM by_id_no_action;
INSERT INTO by_name_restrict VALUES (1, 'gone');
-- Its code is of the server's version.
DO $$
BEGIN
    PERFORM es_rebuild_projection('person');
    RAISE WARNING 'not refused';
EXCEPTION WHEN foreign_key_violation OR restrict_violation THEN
    RAISE WARNING 'refused';
END $$;
DELETE FROM by_name_restrict;
SELECT es_rebuild_projection('person');
SELECT count(*) FROM (TABLE person EXCEPT TABLE fold) q;
SELECT es_drop_projection('person');
DO $$
DECLARE
    r refers;
BEGIN
    FOR r IN TABLE refers LOOP
        EXECUTE format('DROP TABLE %I', r.name);
    END LOOP;
END $$;
DROP TABLE pet, person, fold, refers, before, expect, wrong;

--
-- What rows may exchange: all that must be unique
--
CREATE TABLE room (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text COLLATE "C" NOT NULL,
    opens int4range NOT NULL,
    later int UNIQUE DEFERRABLE INITIALLY DEFERRED,
    label text GENERATED ALWAYS AS (code || ' ' || lower(opens)) STORED,
    EXCLUDE USING gist (opens WITH &&)
);
CREATE UNIQUE INDEX room_lower ON room (lower(code));
CREATE UNIQUE INDEX room_partial ON room ((upper(code)), later) WHERE later > 1;
CREATE TABLE booking (room int REFERENCES room ON DELETE CASCADE, nights int);
SELECT es_append('room-' || i, 'none', 'made', jsonb_build_object('code', chr(96 + i), 'opens', 10 * i, 'later', i)) IS NOT NULL AS appended
  FROM generate_series(1, 5) AS i;
SELECT es_create_projection('room', tables => '{room}', category => 'room', query => $$
    INSERT INTO room (code, opens, later)
    SELECT data->>'code', int4range((data->>'opens')::int, (data->>'opens')::int + 10), (data->>'later')::int FROM new_events ORDER BY position $$);
SELECT es_run_projections();
INSERT INTO booking SELECT id, id * 10 FROM room;
SELECT * FROM room ORDER BY id;
-- A cycle of three, an exchange, and one that is new to the log.
CREATE TABLE right_rooms AS SELECT id, code, opens, later, label FROM room;
BEGIN;
DELETE FROM room WHERE id = 5;
SET CONSTRAINTS ALL IMMEDIATE;
UPDATE room SET code = code || 'x', opens = int4range(lower(opens) + 1000, upper(opens) + 1000), later = -later;
UPDATE room SET code = chr(97 + id % 3), opens = int4range(10 * (id % 3 + 1), 10 * (id % 3 + 2)), later = id % 3 + 1 WHERE id <= 3;
UPDATE room SET code = 'e', opens = '[50,60)', later = 5 WHERE id = 4;
COMMIT;
SELECT code, label FROM room ORDER BY id;
SELECT es_rebuild_projection('room');
SELECT * FROM (TABLE right_rooms EXCEPT TABLE room) q UNION ALL SELECT * FROM (TABLE room EXCEPT TABLE right_rooms) q;
SELECT string_agg(room || ' ' || nights, ', ' ORDER BY room) AS bookings FROM booking;
-- Indexes have what the table has.
SET enable_seqscan = off;
SELECT count(*) FROM room WHERE lower(code) IN ('a', 'b', 'c', 'd', 'e');
SELECT count(*) FROM room WHERE opens && '[1,1000)';
SELECT count(*) FROM room WHERE upper(code) > 'A' AND later > 1;
SELECT count(*) FROM room WHERE later BETWEEN 1 AND 5;
RESET enable_seqscan;

--
-- Triggers of the read model: fired as by any statement, of old and new rows
--
CREATE TABLE fired (what text);
CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired VALUES (format('%s %s %s: %s -> %s', tg_name, tg_when, tg_op, old.code, new.code));
    RETURN CASE tg_op WHEN 'DELETE' THEN old ELSE new END;
END $$;
CREATE FUNCTION note_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired VALUES (format('%s %s %s', tg_name, tg_when, tg_op));
    RETURN NULL;
END $$;
CREATE FUNCTION note_old() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired SELECT format('%s %s of %s', tg_name, tg_op, string_agg(code, ', ' ORDER BY code)) FROM old_rows;
    RETURN NULL;
END $$;
CREATE FUNCTION note_both() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired SELECT format('%s %s of %s', tg_name, tg_op, string_agg(o.code || ' -> ' || n.code, ', ' ORDER BY o.code))
      FROM old_rows o JOIN new_rows n USING (id);
    RETURN NULL;
END $$;
CREATE TRIGGER each_before BEFORE INSERT OR UPDATE OR DELETE ON room FOR EACH ROW EXECUTE FUNCTION note_row();
CREATE TRIGGER each_after AFTER INSERT OR UPDATE OR DELETE ON room FOR EACH ROW EXECUTE FUNCTION note_row();
CREATE TRIGGER of_column AFTER UPDATE OF later ON room FOR EACH ROW EXECUTE FUNCTION note_row();
CREATE TRIGGER when_f AFTER UPDATE ON room FOR EACH ROW WHEN (old.code = 'f') EXECUTE FUNCTION note_row();
CREATE TRIGGER once BEFORE INSERT OR UPDATE OR DELETE ON room FOR EACH STATEMENT EXECUTE FUNCTION note_statement();
CREATE TRIGGER deleted AFTER DELETE ON room REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION note_old();
CREATE TRIGGER updated AFTER UPDATE ON room REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION note_both();
UPDATE room SET code = 'f' WHERE id = 1;
DELETE FROM room WHERE id = 2;
INSERT INTO room (code, opens, later) VALUES ('g', '[70,80)', 7);
TRUNCATE fired;
SELECT es_rebuild_projection('room');
SELECT what FROM fired ORDER BY what;
SELECT * FROM (TABLE right_rooms EXCEPT TABLE room) q UNION ALL SELECT * FROM (TABLE room EXCEPT TABLE right_rooms) q;
-- One that keeps a row as it is.
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON room FOR EACH ROW WHEN (old.code IN ('f', 'g')) EXECUTE FUNCTION keep();
UPDATE room SET code = 'f' WHERE id = 1;
INSERT INTO room (code, opens, later) VALUES ('g', '[70,80)', 7);
SELECT es_rebuild_projection('room');
SELECT string_agg(code, ', ' ORDER BY id) FROM room;
DROP TRIGGER keep ON room;
-- One that keeps a row away to which a table refers: refused, as no action is taken.
CREATE TABLE door (id int PRIMARY KEY, code text UNIQUE);
CREATE TABLE key_card (code text REFERENCES door (code) ON DELETE CASCADE);
SELECT es_create_projection('door', tables => '{door}', category => 'room', query => 'INSERT INTO door SELECT position, data->>''code'' FROM new_events');
INSERT INTO door VALUES (100, 'a'), (101, 'b');
INSERT INTO key_card VALUES ('a');
CREATE TRIGGER keep BEFORE INSERT ON door FOR EACH ROW WHEN (new.code = 'a') EXECUTE FUNCTION keep();
SELECT es_rebuild_projection('door');
DROP TRIGGER keep ON door;
SELECT es_rebuild_projection('door');
SELECT d.code, k.code AS card FROM door d LEFT JOIN key_card k USING (code) ORDER BY id;
-- A duplicate that a trigger makes.
CREATE FUNCTION rename() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.code := 'e'; RETURN new; END $$;
UPDATE door SET code = 'x' WHERE code = 'b';
CREATE TRIGGER rename BEFORE UPDATE ON door FOR EACH ROW EXECUTE FUNCTION rename();
\set VERBOSITY terse
SELECT es_rebuild_projection('door');
\set VERBOSITY default
DROP TRIGGER rename ON door;
-- One that changes another row before its own, and one that does so afterwards.
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE door SET code = code || '!' WHERE id <> new.id AND code NOT LIKE '%!';
    RETURN new;
END $$;
DELETE FROM key_card;
UPDATE door SET code = code || '?';
CREATE TRIGGER meddle BEFORE UPDATE ON door FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION meddle();
SELECT es_rebuild_projection('door');
DROP TRIGGER meddle ON door;
CREATE TRIGGER meddle AFTER UPDATE ON door FOR EACH ROW WHEN (old.code = 'a?') EXECUTE FUNCTION meddle();
SELECT es_rebuild_projection('door');
SELECT string_agg(code, ', ' ORDER BY id) FROM door;
DROP TRIGGER meddle ON door;
SELECT es_drop_projection(name) FROM es_projections;

--
-- Tables in parts, of other layouts; a table without a key; one that others own
--
CREATE TABLE part (gone int, name text, id int, PRIMARY KEY (id), UNIQUE (name, id)) PARTITION BY RANGE (id);
ALTER TABLE part DROP COLUMN gone;
CREATE TABLE part_low (id int NOT NULL, name text);
ALTER TABLE part ATTACH PARTITION part_low FOR VALUES FROM (0) TO (3);
CREATE TABLE part_rest PARTITION OF part DEFAULT;
CREATE TABLE piece (part int REFERENCES part ON DELETE CASCADE, name text, FOREIGN KEY (name, part) REFERENCES part (name, id) ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TABLE low_piece (part int REFERENCES part_low ON DELETE CASCADE);
CREATE TRIGGER updated AFTER UPDATE ON part REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION note_both();
CREATE OR REPLACE FUNCTION note_both() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired SELECT format('%s %s of %s', tg_name, tg_op, string_agg(o.name || ' -> ' || n.name, ', ' ORDER BY o.id))
      FROM old_rows o JOIN new_rows n USING (id);
    RETURN NULL;
END $$;
SELECT es_create_projection('part', tables => '{part}', category => 'room', query => 'INSERT INTO part (id, name) SELECT (data->>''later'')::int, data->>''code'' FROM new_events');
SELECT es_run_projections();
INSERT INTO piece SELECT id, name FROM part;
INSERT INTO low_piece SELECT id FROM part_low;
UPDATE part SET name = CASE id WHEN 1 THEN 'b' WHEN 2 THEN 'a' WHEN 4 THEN 'z' ELSE name END;
INSERT INTO part VALUES ('gone', 0), ('gone', 9);
INSERT INTO piece VALUES (9, 'gone'), (0, NULL);
INSERT INTO low_piece VALUES (0);
DELETE FROM part WHERE id = 5;
SELECT tableoid::regclass, * FROM part ORDER BY id;
TRUNCATE fired;
SELECT es_rebuild_projection('part');
SELECT what FROM fired;
SELECT tableoid::regclass, * FROM part ORDER BY id;
SELECT string_agg(part || ' ' || coalesce(name, '-'), ', ' ORDER BY part) FROM piece;
SELECT string_agg(part::text, ', ' ORDER BY part) FROM low_piece;
-- Children that inherit are rows of the table, too.
CREATE TABLE heir (id int PRIMARY KEY, name text);
CREATE TABLE heir_child (extra int DEFAULT 7, PRIMARY KEY (id)) INHERITS (heir);
SELECT es_create_projection('heir', tables => '{heir}', category => 'room', query => 'INSERT INTO heir SELECT (data->>''later'')::int, data->>''code'' FROM new_events');
INSERT INTO heir_child VALUES (2, 'wrong', 8), (7, 'gone', 9);
INSERT INTO heir VALUES (1, 'wrong');
SELECT es_rebuild_projection('heir');
SELECT tableoid::regclass, * FROM heir ORDER BY id;
SELECT * FROM heir_child;
-- No key: all rows are replaced, and what refers to them stays.
CREATE TABLE loose (name text UNIQUE, n int);
CREATE TABLE loose_piece (name text REFERENCES loose (name) ON DELETE SET NULL);
SELECT es_create_projection('loose', tables => '{loose}', category => 'room', query => 'INSERT INTO loose SELECT data->>''code'', (data->>''later'')::int FROM new_events');
INSERT INTO loose VALUES ('a', 99), ('b', 98), ('gone', 97), (NULL, 96);
INSERT INTO loose_piece VALUES ('a'), ('gone'), (NULL);
SELECT es_rebuild_projection('loose');
SELECT string_agg(name || ' ' || n, ', ' ORDER BY name) FROM loose;
SELECT name FROM loose_piece ORDER BY name;
-- A key of a type whose operators are not the server's.
CREATE SCHEMA es_test_types;
CREATE EXTENSION citext SCHEMA es_test_types;
CREATE TABLE cased (name es_test_types.citext PRIMARY KEY, n int);
CREATE TABLE cased_piece (name es_test_types.citext REFERENCES cased ON DELETE CASCADE);
SELECT es_create_projection('cased', tables => '{cased}', category => 'room', query => 'INSERT INTO cased SELECT data->>''code'', (data->>''later'')::int FROM new_events');
INSERT INTO cased VALUES ('A', 9), ('b', 8), ('X', 7);
INSERT INTO cased_piece VALUES ('a'), ('B'), ('x');
SELECT es_rebuild_projection('cased');
SELECT string_agg(name || ' ' || n, ', ' ORDER BY name) FROM cased;
SELECT string_agg(name, ', ' ORDER BY name) FROM cased_piece;
-- The rows that refer to it are another role's, which its owner may not read.
CREATE ROLE regress_es_owner;
CREATE ROLE regress_es_other;
GRANT CREATE ON SCHEMA public TO regress_es_owner, regress_es_other;
SELECT es_grant('regress_es_owner', 'operator');
GRANT SELECT ON es_events TO regress_es_owner;
SET ROLE regress_es_owner;
CREATE TABLE place (id int PRIMARY KEY, code text NOT NULL UNIQUE);
GRANT REFERENCES ON place TO regress_es_other;
SELECT es_create_projection('place', tables => '{place}', category => 'room', query => 'INSERT INTO place SELECT (data->>''later'')::int, data->>''code'' FROM new_events');
SELECT es_run_projections('place');
SET ROLE regress_es_other;
CREATE TABLE visit (place int REFERENCES place ON DELETE CASCADE, code text REFERENCES place (code) ON UPDATE CASCADE);
INSERT INTO visit SELECT i, chr(96 + i) FROM generate_series(1, 5) AS i;
SET ROLE regress_es_owner;
UPDATE place SET code = code || 'x';
UPDATE place SET code = translate(code, 'abx', 'ba');
RESET ROLE;
UPDATE visit SET code = 'a' WHERE place = 3;
SET ROLE regress_es_owner;
SELECT es_rebuild_projection('place');
SELECT string_agg(id || ' ' || code, ', ' ORDER BY id) FROM place;
RESET ROLE;
SELECT string_agg(place || ' ' || code, ', ' ORDER BY place) FROM visit;

DROP EXTENSION eventstore CASCADE;
DROP TABLE room, booking, right_rooms, fired, door, key_card, part, piece, low_piece, heir, heir_child, loose, loose_piece, cased, cased_piece, place, visit;
DROP EXTENSION citext;
DROP SCHEMA es_test_types;
DROP FUNCTION note_row, note_statement, note_old, note_both, keep, rename, meddle, counts, expected, fill_randomly, refer_randomly, compare;
DROP PROCEDURE play;
DROP OWNED BY regress_es_owner, regress_es_other;
DROP ROLE regress_es_owner, regress_es_other;
