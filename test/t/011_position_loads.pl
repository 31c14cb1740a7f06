# Rows come into es_events with positions of their own while others append: by COPY under a
# lock, with the highest position first, rolled back, and with the trigger disabled.  Each
# append must get a position above everything that a consumer could have passed before it
# began, nobody gets an error, and a consumer gets everything once and in order.  Then rows
# come at positions that appends take as well: each of the two may be refused, with an error
# that says so, and appends are still above, and all of them are delivered.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = few_or_many(4, 30);
my $clients = 8;
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store('loads', fsync => 'off', conf => "deadlock_timeout = 50ms\n");

$node->safe_psql('postgres', <<'END');
CREATE UNLOGGED TABLE appended (passed bigint, position bigint, errors text);
CREATE UNLOGGED TABLE seen (place bigint GENERATED ALWAYS AS IDENTITY, position bigint);
CREATE TABLE loads (kind text, rows int, error text);
CREATE TABLE phase_ends (phase text);
SELECT es_create_subscription('all');

-- What a consumer may have passed by now is the horizon.
CREATE FUNCTION append_above(stream text, count int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	passed bigint := es_horizon();
BEGIN
	INSERT INTO appended SELECT passed, position FROM es_append_batch(stream, 'any',
		array_fill('appended'::text, ARRAY[count]), array_fill('{}'::jsonb, ARRAY[count]));
END $$;

-- The same, where an append may be refused.
CREATE FUNCTION try_to_append(stream text, count int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM append_above(stream, count);
EXCEPTION WHEN OTHERS THEN
	INSERT INTO appended (errors) VALUES (SQLSTATE || ' ' || SQLERRM);
END $$;

-- Copies so many rows to positions above one, in an order.
CREATE FUNCTION copy_rows(above bigint, rows int, highest_first bool, file text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('COPY (SELECT p, 1, %L::xid8, now(), NULL, md5(p::text)::uuid, %L || p, %L, %L::jsonb, NULL, NULL, NULL
	                        FROM generate_series(%s, %s) AS p ORDER BY %s p <> %s, p) TO %L',
		3, 'load-', 'loaded', '{}', above + 1, above + rows, CASE WHEN highest_first THEN '' ELSE 'true OR' END, above + rows, file);
	EXECUTE format('COPY es_events FROM %L', file);
END $$;

CREATE PROCEDURE load_some(kind text, file text) LANGUAGE plpgsql AS $$
DECLARE
	rows int := 1 + random() * CASE kind WHEN 'beside' THEN 10 ELSE 200 END;
	above bigint;
BEGIN
	IF kind = 'locked' THEN
		LOCK TABLE es_events IN SHARE ROW EXCLUSIVE MODE;
	ELSIF kind = 'untriggered' THEN
		ALTER TABLE es_events DISABLE TRIGGER es_events_complete;
	END IF;
	-- where nothing keeps appends out, go above what they draw meanwhile
	SELECT last_value + CASE kind WHEN 'locked' THEN (random() * 3)::int WHEN 'untriggered' THEN 1000
	                              WHEN 'beside' THEN 5 + (random() * 60)::int ELSE 1000000 END INTO above FROM es_position;
	PERFORM copy_rows(above, rows, kind NOT IN ('locked', 'beside'), file);
	PERFORM pg_sleep(random() * 0.02);
	IF kind = 'untriggered' THEN
		ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_complete;
	END IF;
	IF kind = 'rolled back' THEN
		ROLLBACK;
	END IF;
	INSERT INTO loads VALUES (kind, rows);
	COMMIT;
END $$;

CREATE PROCEDURE consume() LANGUAGE plpgsql AS $$
DECLARE
	stopping bool;
	got int;
	last_token bigint;
BEGIN
	LOOP
		stopping := EXISTS (SELECT FROM phase_ends);
		COMMIT;
		WITH delivered AS (SELECT * FROM es_poll('all', 'consumer', 500)),
		     kept AS (INSERT INTO seen (position) SELECT d.position FROM delivered d ORDER BY d.position)
		SELECT count(*), max(token) INTO got, last_token FROM delivered;
		IF got > 0 THEN PERFORM es_ack('all', last_token); END IF;
		COMMIT;
		EXIT WHEN stopping AND got = 0;
		IF got = 0 THEN PERFORM pg_sleep(0.001); END IF;
	END LOOP;
END $$;
END

# Runs appenders, loaders of these kinds and the consumer side by side.
sub run_phase
{
	my ($append, @kinds) = @_;
	my (@loaders, $end);

	$node->safe_psql('postgres', 'TRUNCATE phase_ends, appended, seen, loads');
	append_to_file("$folder/append.sql.$append", <<"END");
\\set s random(1, 40)
\\set n random(1, 3)
SELECT $append('stress-:s', :n);
END
	append_to_file("$folder/consume.sql", "CALL consume();\n") unless -e "$folder/consume.sql";
	my $consumer = start_psql($node, "$folder/consume.sql", "$folder/consume");
	my $appenders = IPC::Run::start(
		[ 'pgbench', '-n', '-c', $clients, '-j', 2, '-T', $seconds, '-f', "$folder/append.sql.$append", $node->connstr('postgres') ],
		'<', '/dev/null', '>', "$folder/append.out", '2>', "$folder/append.err");

	$end = time() + $seconds;
	for (my $i = 0; time() < $end; $i++)
	{
		my $kind = $kinds[ $i % @kinds ];
		my ($status, $out, $error) = $node->psql('postgres', "CALL load_some('$kind', '$folder/rows')");

		$error =~ s/'/''/g;
		$node->safe_psql('postgres', "INSERT INTO loads VALUES ('$kind', 0, '$error')") if $status != 0;
	}
	$appenders->finish;
	ok($appenders->result == 0, "$append: no client was ended by an error") or diag(slurp_file("$folder/append.err"));
	$node->safe_psql('postgres', q{INSERT INTO phase_ends VALUES ('over')});
	ok(finish_psql($consumer), "$append: the consumer came to its end") or diag(slurp_file("$folder/consume.err"));
	diag("$append: " . $node->safe_psql('postgres', q{
		SELECT (SELECT count(*) FROM appended WHERE errors IS NULL) || ' appends, ' ||
		       (SELECT count(*) FROM appended WHERE errors IS NOT NULL) || ' refused; ' ||
		       (SELECT string_agg(n || ' ' || kind, ', ')
		          FROM (SELECT kind || CASE WHEN error IS NULL THEN '' ELSE ' refused' END AS kind, count(*) AS n
		                  FROM loads GROUP BY 1 ORDER BY 1) k) || ' loads'}));
	return;
}

# Appends at or below what was passed, among those of a history.
sub below
{
	my ($history) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FROM ($history) h WHERE position <= passed");
}

# Events of the log that were not delivered, or twice, or out of order.
sub delivery_faults
{
	my ($where) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT (SELECT count(*) FROM (SELECT position FROM es_events WHERE $where
		                              EXCEPT SELECT position FROM seen_before) m
		         WHERE NOT EXISTS (SELECT FROM seen s WHERE s.position = m.position)),
		       (SELECT count(*) - count(DISTINCT position) FROM seen),
		       (SELECT count(*) FROM (SELECT position < lag(position) OVER (ORDER BY place) AS back FROM seen) s WHERE back)});
}

$node->safe_psql('postgres', 'CREATE TABLE seen_before (position bigint)');
run_phase('append_above', 'locked', 'highest first', 'untriggered', 'rolled back');
is(below('SELECT passed, position FROM appended'), 0, 'appends are above what consumers could have passed');
is(below('SELECT passed, position FROM appended UNION ALL (SELECT position, position FROM appended LIMIT 1)'),
	1, 'the check catches one that is not');
is(delivery_faults('true'), '0|0|0', 'everything was delivered once and in order');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT error, '; ') FROM loads WHERE error IS NOT NULL}), '', 'no load was refused');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT kind, ',' ORDER BY kind) FROM loads}),
	'highest first,locked,rolled back,untriggered', 'each kind of load was there');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM es_events WHERE type = 'loaded'}), '>', 100, 'rows came');
is($node->safe_psql('postgres', 'SELECT last_value >= (SELECT max(position) FROM es_events) FROM es_position'), 't',
	'the sequence is not behind the table');
$node->safe_psql('postgres', 'DELETE FROM seen WHERE place = (SELECT max(place) / 2 FROM seen)');
is(delivery_faults('true'), '1|0|0', 'the check catches an event that is not delivered');

$node->safe_psql('postgres', 'INSERT INTO seen_before SELECT position FROM es_events');
run_phase('try_to_append', 'beside');
is(below('SELECT passed, position FROM appended'), 0, 'with rows at the same positions: appends are above what consumers could have passed');
is(delivery_faults(q{type = 'appended'}), '0|0|0', 'every append was delivered once and in order');
is($node->safe_psql('postgres', q{
	SELECT string_agg(DISTINCT left(errors, 5), ',') FROM appended WHERE errors IS NOT NULL AND errors !~ '^40P01'}) =~ s/^40001$//r, '',
	'an append that is refused is so with 40001');
is($node->safe_psql('postgres', q{SELECT count(*) FROM loads WHERE error !~ 'duplicate key value violates unique constraint "es_events_pkey"|deadlock'}),
	0, 'and a load as a duplicate position');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM appended WHERE errors ~ '^40001'}) +
	$node->safe_psql('postgres', q{SELECT count(*) FROM loads WHERE error IS NOT NULL}), '>', 0, 'some were refused');

holds_horizon_at_end($node, 'at the end');
holds_versions_dense($node, 'at the end');
$node->stop;
done_testing();
