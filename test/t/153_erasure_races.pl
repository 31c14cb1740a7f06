# Erasures beside appends, reads, folds, commands and projections of the same persons. A session notes an erasure when it
# has returned. Whoever begins after that must get nothing of the person: readers look at the notes first, and then read in
# every way. Writers must not get an event stored. A table that a projection has filled finds what readers look for.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

use_seed();
my $seconds = few_or_many(6, 60);
my $persons = few_or_many(60, 400);
my $node = new_store('races', workers => 1, conf => "eventstore.snapshot_every = 5\n");

sql($node, <<'END');
SELECT es_define_event_type('said', personal => '{words}', subject => 'person');
CREATE TABLE noted (person text PRIMARY KEY);
CREATE TABLE violations (what text, detail text);
CREATE TABLE counted (what text, n bigint);
CREATE TABLE copied (person text, words text);
CREATE FUNCTION copy(e es_recorded_event) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO copied SELECT e.data->>'person', e.data->>'words' WHERE e.type = 'said' $$;
SELECT es_create_projection('copy', 'copy', tables => '{copied}');
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT jsonb_build_array(jsonb_build_object('type', 'said', 'data', command)) $$;

-- Appends in three ways. Each event is of a random person, in one of a few streams.
CREATE PROCEDURE write_for(seconds int, persons int, seed float8) LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + seconds * interval '1 s';
    _person text; gone boolean; stored boolean; data jsonb; n int := 0; refused int := 0;
BEGIN
    PERFORM setseed(seed);
    WHILE clock_timestamp() < until LOOP
        _person := floor(random() * persons)::int::text;
        gone := EXISTS (SELECT FROM noted WHERE person = _person);
        data := jsonb_build_object('person', _person, 'words', 'words of ' || _person);
        BEGIN
            CASE floor(random() * 3)::int
                WHEN 0 THEN PERFORM es_append('talk-' || floor(random() * 20)::int, 'any', 'said', data);
                WHEN 1 THEN PERFORM es_append_batch('talk-' || floor(random() * 20)::int, 'any',
                    jsonb_build_array(jsonb_build_object('type', 'said', 'data', data), '{"type": "other", "data": {}}'::jsonb));
                ELSE PERFORM es_execute('talk-' || floor(random() * 20)::int, 'decide', data, 'es_last');
            END CASE;
            stored := true;
        EXCEPTION WHEN SQLSTATE 'ES008' THEN
            stored := false;
            refused := refused + 1;
        WHEN deadlock_detected THEN
            stored := false;
        END;
        IF gone AND stored THEN
            INSERT INTO violations VALUES ('append', _person);
        END IF;
        n := n + 1;
        COMMIT;
    END LOOP;
    INSERT INTO counted VALUES ('appends', n - refused), ('refused', refused);
END $$;

-- Reads in every way, what was erased before.
CREATE PROCEDURE read_for(seconds int, seed float8) LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + seconds * interval '1 s';
    gone text[]; found text; way int; n int := 0; stream text;
BEGIN
    PERFORM setseed(seed);
    WHILE clock_timestamp() < until LOOP
        gone := ARRAY(SELECT person FROM noted);
        stream := 'talk-' || floor(random() * 20)::int;
        way := floor(random() * 6)::int;
        CASE way
            WHEN 0 THEN SELECT min(e.data->>'person') INTO found FROM es_read() e
                WHERE e.data->>'person' = ANY (gone) AND e.data->>'words' IS NOT NULL;
            WHEN 1 THEN SELECT min(e.data->>'person') INTO found FROM es_load(stream) e
                WHERE e.data->>'person' = ANY (gone) AND e.data->>'words' IS NOT NULL;
            WHEN 2 THEN SELECT min(e.data->>'person') INTO found
                FROM es_query(jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('es_subject:' || coalesce(gone[1 + floor(random() * cardinality(gone))::int], 'none'))))) e
                WHERE e.data->>'words' IS NOT NULL;
            WHEN 3 THEN SELECT s.state->>'person' INTO found FROM es_state(stream, 'es_last') s
                WHERE s.state->>'person' = ANY (gone) AND s.state->>'words' IS NOT NULL;
            WHEN 4 THEN SELECT min(e.data->>'person') INTO found FROM es_read_category('talk') e
                WHERE e.data->>'person' = ANY (gone) AND e.data->>'words' IS NOT NULL;
            ELSE SELECT min(h.state->>'person') INTO found FROM es_history(stream, 'es_last') h
                WHERE h.state->>'person' = ANY (gone) AND h.state->>'words' IS NOT NULL;
        END CASE;
        IF found IS NOT NULL THEN
            INSERT INTO violations VALUES ('read ' || way, found);
        END IF;
        n := n + 1;
        COMMIT;
    END LOOP;
    INSERT INTO counted VALUES ('reads', n);
END $$;

-- Erases one half of the persons, one after the other, and notes each when that is committed.
CREATE PROCEDURE erase_for(seconds int, persons int) LANGUAGE plpgsql AS $$
DECLARE
    n int := 0; deadlocks int := 0;
BEGIN
    FOR i IN 0 .. persons - 1 BY 2 LOOP
        LOOP
            BEGIN
                PERFORM es_erase_subject(i::text);
                EXIT;
            EXCEPTION WHEN deadlock_detected THEN
                deadlocks := deadlocks + 1;
            END;
        END LOOP;
        COMMIT;
        INSERT INTO noted VALUES (i);
        COMMIT;
        n := n + 1;
        PERFORM pg_sleep(seconds * 0.8 / (persons / 2.0) - 0.005);
    END LOOP;
    INSERT INTO counted VALUES ('erasures', n), ('deadlocks', deadlocks);
END $$;
END

my @calls = (
	map({ sprintf 'CALL write_for(%d, %d, %f)', $seconds, $persons, rand } 1 .. 2),
	map({ sprintf 'CALL read_for(%d, %f)', $seconds, rand } 1 .. 3),
	"CALL erase_for($seconds, $persons)");
my $folder = PostgreSQL::Test::Utils::tempdir();
my @sessions;

foreach my $n (0 .. $#calls)
{
	append_to_file("$folder/$n.sql", "$calls[$n];\n");
	push @sessions, start_psql($node, "$folder/$n.sql", "$folder/$n");
}
ok(finish_psql($sessions[$_]), "it goes on to its end: $calls[$_]") || diag(slurp_file("$folder/$_.err")) foreach 0 .. $#calls;
my %counted = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT what, sum(n) FROM counted GROUP BY what');

note(join ', ', map { "$_: $counted{$_}" } sort keys %counted);
is($counted{erasures}, $persons / 2, 'all were erased');
cmp_ok($counted{$_}, '>', 0, "there were $_") foreach qw(appends refused reads);
is($node->safe_psql('postgres', 'SELECT what, count(*), min(detail) FROM violations GROUP BY what'), '',
	'nobody read or stored anything of a person who was erased before');

# What is left
is($node->safe_psql('postgres', q{SELECT count(*) FROM es_read() e JOIN noted n ON n.person = e.data->>'person' WHERE e.data->>'words' IS NOT NULL}),
	'0', 'nothing of them can be read');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM es_read() e WHERE e.data->>'words' = 'words of ' || (e.data->>'person')}),
	'>', 0, 'what is about others can be');
is($node->safe_psql('postgres', q{SELECT count(*) FROM es_snapshots s JOIN noted n ON n.person = s.state->>'person' WHERE s.state->>'words' IS NOT NULL}),
	'0', 'no state that was saved has it');
$node->safe_psql('postgres', q{SELECT es_run_projections()});
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM copied c JOIN noted n USING (person) WHERE c.words IS NOT NULL}),
	'>', 0, 'control: the copies that a projection keeps have it');

#
# Persons with many streams, erased at once: they wait for one another, and do not deadlock
#
my $together = 6;

$node->safe_psql('postgres', "SELECT count(es_append('many-' || (n + 1000 * p), 'none', 'said', jsonb_build_object('person', 'p' || p, 'words', 'w')))
	FROM generate_series(1, 40) n, generate_series(1, $together) p");
append_to_file("$folder/together$_.sql", "SELECT es_erase_subject('p$_');\n") foreach 1 .. $together;
@sessions = map { start_psql($node, "$folder/together$_.sql", "$folder/together$_") } 1 .. $together;
ok(finish_psql($sessions[ $_ - 1 ]), "person $_ of $together is erased beside the others") || diag(slurp_file("$folder/together$_.err")) foreach 1 .. $together;
$node->stop;
done_testing();
