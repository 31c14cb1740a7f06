-- What the consumers of examples/ do with an event: they write it down here,
-- in the order in which they handle events.
CREATE TABLE handled (
	ordinal bigint GENERATED ALWAYS AS IDENTITY,
	consumer text,
	position bigint NOT NULL,
	stream text NOT NULL,
	version bigint NOT NULL,
	attempt int NOT NULL);

-- About one event of a hundred, of all streams by turns, fails at its first
-- attempt.
CREATE FUNCTION fails("position" bigint) RETURNS boolean IMMUTABLE RETURN "position" % 101 = 7;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE 'not at the first attempt';
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON handled
	FOR EACH ROW WHEN (fails(NEW.position) AND NEW.attempt = 1) EXECUTE FUNCTION refuse();
