# Writers of every kind, others that delete and truncate the streams, and readers that tail
# the log up to the horizon.  Each reader must have got every event that was ever committed,
# unless its snapshot saw the removal when it passed the position.  Its horizon only rises,
# and is not below what was removed.  The same check must catch a reader without the horizon.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use EventStoreWriters;
use PostgreSQL::Test::Utils;
use Test::More;

# Seconds, and clients of each kind.
my @phases = (
	[ few_or_many(3, 30), quick => 6, slow => 10, remove => 4 ],
	[ few_or_many(3, 15), burst => 4, remove => 4 ],
	[ few_or_many(2, 15), quick => 2, remove => 2 ]);
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store('removals', fsync => 'on', conf => <<'END');
deadlock_timeout = 50ms
autovacuum_naptime = 1s
END

use_seed();

# What a reader reads after the position "last".  "fresh": in a session of its own each time.
# One that is late meets more that was removed.
my %readers = (
	read => { sql => 'es_read(last, 100)' },
	repeatable => { sql => 'es_read(last, 100)', isolation => 'repeatable read' },
	fresh => { sql => 'es_read(last, 100)', fresh => 1 },
	late => { sql => 'es_read(last, 1000)', pause => 0.3 },
	without => {
		sql => '(SELECT position FROM es_events WHERE position > last ORDER BY position LIMIT 100)',
		control => 1 });

# A read is one statement.  It has its snapshot, its horizon, what it has got, and the last of
# the removed events whose removals it sees.  It is stored by a transaction of its own.
sub create_reader
{
	my ($name, $reader) = @_;
	my $reads_together = $reader->{isolation} ? 3 : 1;
	my $pause = $reader->{pause} // 0;

	$node->safe_psql('postgres', <<"END");
CREATE TABLE reads_$name (ordinal bigint GENERATED ALWAYS AS IDENTITY, snapshot pg_snapshot,
	horizon bigint, removed bigint, last bigint, positions bigint[]);

CREATE PROCEDURE tail_$name(INOUT last bigint, INOUT stopped bool, rounds bigint) LANGUAGE plpgsql AS \$\$
DECLARE
	stopping bool;
	chunk reads_$name;
	chunks reads_$name\[];
BEGIN
	FOR round IN 1 .. rounds LOOP
		-- a reader that stops has seen the end of the writers before its last read
		stopping := EXISTS (SELECT FROM writers_are_done);
		COMMIT;
		chunks := '{}';
		FOR i IN 1 .. $reads_together LOOP
			SELECT NULL::bigint, pg_current_snapshot(), es_horizon(),
			       (SELECT max(upper(positions)) - 1 FROM (SELECT positions FROM es_removals ORDER BY id DESC LIMIT 100) AS r),
			       last, (SELECT array_agg(position) FROM $reader->{sql} AS e)
			  INTO chunk;
			chunks := chunks || chunk;
			last := coalesce(chunk.positions[array_upper(chunk.positions, 1)], last);
		END LOOP;
		COMMIT;
		INSERT INTO reads_$name (snapshot, horizon, removed, last, positions)
			SELECT snapshot, horizon, removed, c.last, positions FROM unnest(chunks) AS c;
		COMMIT;
		stopped := stopping AND chunk.positions IS NULL;
		EXIT WHEN stopped;
		PERFORM pg_sleep(CASE WHEN stopping THEN 0 WHEN chunk.positions IS NULL THEN 0.001 ELSE $pause END);
	END LOOP;
END \$\$;
END
	return;
}

# A fresh reader is a new session for each read; it stops after many.
sub start_reader
{
	my ($name, $reader) = @_;
	my $isolation = $reader->{isolation} // 'read committed';
	my $call = "CALL tail_$name(:last, :'stopped', %d) \\gset\n";

	append_to_file("$folder/$name.sql", "\\set last 0\n\\set stopped f\n");
	append_to_file("$folder/$name.sql", (sprintf($call, 1) . "\\c\n") x few_or_many(500, 5000))
	  if $reader->{fresh};
	append_to_file("$folder/$name.sql", sprintf $call, 10**9);
	$isolation =~ s/ /\\ /;
	local $ENV{PGOPTIONS} = "-c default_transaction_isolation=$isolation";
	$reader->{psql} = start_psql($node, "$folder/$name.sql", "$folder/$name");
	return;
}

# All that was ever committed, and by which transaction it was removed.
sub collect_events
{
	$node->safe_psql('postgres', <<'END');
CREATE TABLE ever AS
	SELECT position, NULL::xid8 AS removed_by FROM es_events
	UNION ALL
	SELECT p, r.xmin::text::xid8
	  FROM es_removals AS r, unnest(r.positions) AS range, generate_series(lower(range), upper(range) - 1) AS p;
CREATE UNIQUE INDEX ON ever (position);
ANALYZE;
END
	return;
}

# Compares what a reader has got with what it should have, place by place.
sub compare
{
	my ($name) = @_;

	return split /\|/, $node->safe_psql('postgres', <<"END");
WITH got AS (SELECT position FROM reads_$name, unnest(positions) AS position),
passed AS (
	SELECT e.position, coalesce(pg_visible_in_snapshot(e.removed_by, r.snapshot), false) AS gone
	  FROM reads_$name AS r JOIN ever AS e
	    ON r.positions IS NOT NULL AND e.position > r.last AND e.position <= r.positions[array_upper(r.positions, 1)]),
horizons AS (SELECT horizon, removed, lag(horizon) OVER (ORDER BY ordinal) AS before FROM reads_$name)
SELECT (SELECT count(*) FROM got),
       (SELECT count(*) FROM passed WHERE gone),
       (SELECT count(*) FROM passed WHERE NOT gone AND position NOT IN (SELECT position FROM got)),
       (SELECT count(*) FROM got WHERE position NOT IN (SELECT position FROM passed WHERE NOT gone)),
       (SELECT count(*) - count(DISTINCT position) FROM got),
       (SELECT count(*) FROM ever WHERE removed_by IS NULL AND position NOT IN (SELECT position FROM got)),
       (SELECT count(*) FROM horizons WHERE horizon < before),
       (SELECT count(*) FROM horizons WHERE horizon < removed)
END
}

create_writers($node);
$node->safe_psql('postgres', 'CREATE TABLE writers_are_done ()');
create_reader($_, $readers{$_}) foreach sort keys %readers;
start_reader($_, $readers{$_}) foreach sort keys %readers;
write_events($node, @$_) foreach @phases;
$node->safe_psql('postgres', 'INSERT INTO writers_are_done DEFAULT VALUES');
foreach my $name (sort keys %readers)
{
	ok(finish_psql($readers{$name}{psql}), "$name: the reader came to its end");
	note(slurp_file("$folder/$name.err"));
}
collect_events();

my ($events, $removals, $removed) = split /\|/, $node->safe_psql('postgres',
	'SELECT (SELECT count(*) FROM ever), count(*), sum(removed) FROM es_removals');
diag("removals: $events events, $removed of them removed by $removals removals");
cmp_ok($removed, '>', 0, 'events were removed');
is_query($node, 'SELECT count(*) FROM ever WHERE removed_by IS NOT NULL', $removed,
	'the removals say which');
is_query($node, q{
	SELECT count(*) FROM (SELECT position FROM es_removed_ids
	                      EXCEPT ALL SELECT position FROM ever WHERE removed_by IS NOT NULL) AS d},
	'0', 'and so do the ids that are kept');

foreach my $name (sort keys %readers)
{
	my ($got, $gone, $missed, $wrong, $twice, $left, $fallen, $below) = compare($name);

	diag("$name: got $got, gone before $gone, missed $missed; horizon fell $fallen, below removed $below");
	if ($readers{$name}{control})
	{
		cmp_ok($missed, '>', 0, "$name: the check catches a reader without the horizon");
		next;
	}
	is("$missed, $wrong, $twice, $left", '0, 0, 0, 0', "$name: nothing missed, nothing twice");
	is($fallen, 0, "$name: the horizon only rises") if !$readers{$name}{fresh};
	is($below, 0, "$name: the horizon is not below what was removed");
	cmp_ok($got, '>', 0, "$name: there was something to read");
	cmp_ok($gone, '>', 0, "$name: something was removed before it was read") if $name eq 'late';
}

holds_horizon_at_end($node, 'at the end');
$node->stop;
done_testing();
