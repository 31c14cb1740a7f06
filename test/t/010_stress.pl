# Writers of every kind, and readers that tail the log up to the horizon: each
# reader must have read the log exactly, nothing missed, nothing twice, in order.
# The same check must catch a reader that does without the horizon.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use EventStoreWriters;
use PostgreSQL::Test::Utils;
use Test::More;

# Seconds, and clients of each kind.  While there are slow ones, some append is
# always in flight and readers are far behind the end.  A burst is about moments
# within an append.  With few writers a transaction often is the last of all.
my @phases = (
	[ few_or_many(5, 8), quick => 8, slow => 12 ],
	[ few_or_many(3, 6), burst => 8 ],
	[ few_or_many(3, 6), quick => 3 ]);
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store('stress', fsync => 'on', conf => <<'END');
deadlock_timeout = 50ms
autovacuum_naptime = 1s
END

use_seed();

# What a reader reads, and under which isolation level.  "last" is the last
# position of what it read before, "bound" the horizon of a statement before.
# "late" is opened as a cursor, and read after the session has found a later horizon.
my %readers = (
	read => { sql => 'SELECT position, id FROM es_read(last, 100)' },
	two_statements => {
		sql => 'SELECT position, id FROM es_events
			     WHERE position > last AND position <= bound ORDER BY position LIMIT 100' },
	repeatable => {
		isolation => 'repeatable read',
		sql => 'SELECT position, id FROM es_read(last, 100)' },
	late => {
		sql => 'SELECT position, id FROM es_read(last, 100)',
		cursor => 1 },
	category => {
		sql => q{SELECT position, id FROM es_read_category('stress', last, 100)},
		log => q{WHERE es_category(stream) = 'stress'} },
	without => {
		control => 1,
		sql => 'SELECT position, id FROM es_events WHERE position > last ORDER BY position LIMIT 100' });

# A reader's transactions hold what it reads and nothing else: what it has seen
# is stored by one of its own, later.
sub create_reader
{
	my ($name, $reader) = @_;
	my $reads_together = $reader->{isolation} ? 3 : 1;
	my $query = <<"END";
SELECT array_agg(position), array_agg(id)
			  FROM ($reader->{sql}) AS events
END
	my $read = "$query INTO chunk_positions, chunk_ids;";

	$read = <<"END" if $reader->{cursor};
OPEN late FOR $query;
			PERFORM pg_sleep(0.001);
			PERFORM es_horizon();
			FETCH late INTO chunk_positions, chunk_ids;
			CLOSE late;
END

	$node->safe_psql('postgres', <<"END");
CREATE UNLOGGED TABLE seen_$name (ordinal bigint GENERATED ALWAYS AS IDENTITY, position bigint, id uuid);
CREATE TABLE reads_$name (reads bigint, empty bigint);

CREATE PROCEDURE tail_$name() LANGUAGE plpgsql AS \$\$
DECLARE
	last bigint := 0;
	bound bigint;
	positions bigint[];
	ids uuid[];
	stopping bool := false;
	chunk_positions bigint[];
	chunk_ids uuid[];
	late refcursor;
	reads bigint := 0;
	empty bigint := 0;
BEGIN
	LOOP
		-- a reader that stops has seen the end of the writers before its last read
		stopping := EXISTS (SELECT FROM writers_are_done);
		COMMIT;
		positions := '{}';
		ids := '{}';
		FOR i IN 1 .. $reads_together LOOP
			bound := es_horizon();
			$read
			reads := reads + 1;
			IF chunk_positions IS NULL THEN
				PERFORM pg_sleep(0.001);
				empty := empty + 1;
			ELSE
				last := chunk_positions[array_upper(chunk_positions, 1)];
				positions := positions || chunk_positions;
				ids := ids || chunk_ids;
			END IF;
		END LOOP;
		COMMIT;
		EXIT WHEN stopping AND positions = '{}';
		INSERT INTO seen_$name (position, id) SELECT * FROM unnest(positions, ids);
		COMMIT;
	END LOOP;
	INSERT INTO reads_$name VALUES (reads, empty);
END \$\$;
END
	append_to_file("$folder/$name.sql", "CALL tail_$name();\n");
	return;
}

sub start_reader
{
	my ($name, $reader) = @_;
	my $isolation = $reader->{isolation} // 'read committed';

	$isolation =~ s/ /\\ /;
	local $ENV{PGOPTIONS} = "-c default_transaction_isolation=$isolation";
	$reader->{psql} = start_psql($node, "$folder/$name.sql", "$folder/$name");
	return;
}

# Compares what a reader has seen with the log, place by place.
sub compare
{
	my ($name, $reader) = @_;
	my $where = $reader->{log} // '';

	return split /\|/, $node->safe_psql('postgres', <<"END");
WITH log AS (
	SELECT position, id, row_number() OVER (ORDER BY position) AS place FROM es_events $where),
seen AS (
	SELECT position, id, row_number() OVER (ORDER BY ordinal) AS place FROM seen_$name)
SELECT (SELECT count(*) FROM log),
       (SELECT count(*) FROM log WHERE NOT EXISTS (SELECT FROM seen WHERE seen.id = log.id)),
       (SELECT count(*) - count(DISTINCT id) FROM seen),
       (SELECT count(*) FROM log FULL JOIN seen USING (place, position, id)
         WHERE log.place IS NULL OR seen.place IS NULL),
       reads, empty
  FROM reads_$name
END
}

create_writers($node);
$node->safe_psql('postgres', 'CREATE TABLE writers_are_done ()');
create_reader($_, $readers{$_}) foreach sort keys %readers;
start_reader($_, $readers{$_}) foreach sort keys %readers;

my $seconds = 0;
foreach my $phase (@phases)
{
	write_events($node, @$phase);
	$seconds += $phase->[0];
}
$node->safe_psql('postgres', 'INSERT INTO writers_are_done DEFAULT VALUES');

foreach my $name (sort keys %readers)
{
	ok(finish_psql($readers{$name}{psql}), "$name: the reader came to its end");
	note(slurp_file("$folder/$name.err"));
}

my ($events, $gaps) = split /\|/,
  $node->safe_psql('postgres', 'SELECT count(*), max(position) - count(*) FROM es_events');
diag(sprintf 'stress: %d events, %d gaps, %d a second; %s conflicts of expected versions, %s deadlocks',
	$events, $gaps, $events / $seconds, $node->safe_psql('postgres', 'SELECT last_value FROM conflicts'),
	$node->safe_psql('postgres', q{SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'}));
cmp_ok($gaps, '>', 0, 'there were gaps');

foreach my $name (sort keys %readers)
{
	my ($log, $missed, $twice, $different, $reads, $empty) = compare($name, $readers{$name});

	diag("$name: $log events in $reads reads ($empty of them empty), missed $missed, twice $twice");
	if ($readers{$name}{control})
	{
		cmp_ok($missed, '>', 0, "$name: the check catches a reader without the horizon");
		next;
	}
	is("$missed, $twice, $different", '0, 0, 0', "$name: nothing missed, nothing twice, in order");
	cmp_ok($log, '>', 0, "$name: there was something to read");
}

holds_horizon_at_end($node, 'at the end');
holds_versions_dense($node, 'at the end');
$node->stop;
done_testing();
