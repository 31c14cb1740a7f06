# Restores into databases that workers serve.  A projection that lagged is not run before the
# rows of its read model are there, whatever comes first.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = new_store('source', fsync => 'off', extension => 0);

create_database($source, 'lagging', 'public');
$source->safe_psql('lagging', q{
	CREATE EXTENSION eventstore;
	CREATE TABLE zz_sum (n bigint);
	INSERT INTO zz_sum VALUES (0);
	CREATE TABLE aa_seen (position bigint);
	SELECT count(es_append('a-' || i % 5, 'any', 'paid', jsonb_build_object('n', i))) FROM generate_series(1, 200) i;
	SELECT es_create_projection('sums', tables => '{zz_sum}', batch_size => 50, query =>
		$$UPDATE zz_sum SET n = zz_sum.n + (SELECT sum((data->>'n')::bigint) FROM new_events)$$);
	SELECT es_create_projection('seen', tables => '{aa_seen}', batch_size => 50, query => 'INSERT INTO aa_seen SELECT position FROM new_events');
	SELECT es_run_projections('sums', 2), es_run_projections('seen', 1);
	ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
	CREATE POLICY p ON es_events USING (es_category(stream) = 'none')});
is($source->safe_psql('lagging', 'SELECT name, position FROM es_projections ORDER BY name'), "seen|50\nsums|100", 'two that lag');
dump_database($source, 'lagging', 'lagging.plain');
dump_database($source, 'lagging', 'lagging.folder', '-Fd');
dump_database($source, 'lagging', 'data.plain', '--data-only');

# Until a worker serves the database, and has had time for what it is not to do.
my $wait_for_worker = q{DO $$ BEGIN
	FOR i IN 1 .. 3000 LOOP
		EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE backend_type ~ 'eventstore worker' AND datname = current_database());
		PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
	END LOOP;
	PERFORM pg_sleep(0.7);
END $$;};

# The dump again, with time for the workers before the table of the user that is loaded last.
sub slow_dump
{
	my ($from, $to) = @_;
	my $text = slurp_file(dump_file($from));

	like($text, qr/COPY public\.es_user_definitions.*COPY public\.zz_sum/s, "$from: the read model is loaded last");
	$text =~ s/^(COPY public\.zz_sum)/$wait_for_worker\n$1/m;
	append_to_file(dump_file($to), $text);
	return;
}

sub comes_out_right
{
	my ($node, $database, $name) = @_;

	ok($node->poll_query_until($database, 'SELECT bool_and(position = 200) FROM es_projections'), "$name: workers go on");
	is($node->safe_psql($database, 'SELECT sum(n), (SELECT count(*) FROM aa_seen) FROM zz_sum'), '20100|200', "$name: each event once");
	return;
}

slow_dump('lagging.plain', 'slow.plain');
slow_dump('data.plain', 'slow_data.plain');
foreach my $how ([ 'whole', 'slow.plain' ], [ 'data', 'slow_data.plain', 'lagging.plain' ], [ 'jobs', 'lagging.folder', undef, '-j', '4' ])
{
	my ($name, $file, $before, @options) = @$how;
	my $node = new_store($name, fsync => 'off', workers => 2, extension => 0, conf => 'eventstore.poll_interval = 20ms');

	if ($before)
	{
		# a store that is open, and the user's tables, as they are before a restore of data alone
		$node->safe_psql('postgres', q{CREATE EXTENSION eventstore; CREATE TABLE zz_sum (n bigint); CREATE TABLE aa_seen (position bigint)});
	}
	restore_database($node, 'postgres', $file, @options);
	comes_out_right($node, 'postgres', $name);
	$node->stop;
}

$source->stop;
done_testing();
