# Projections go on where they were after a dump is restored: sync and async, paused,
# failed, with events that are parked, and one that refreshes a view.  Nothing is
# handled twice, and nothing is left out.  The dump is made while events are
# appended and handled.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStoreProjections;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Databases, and where everything is found in them.
my %search_path = (plain => 'public', elsewhere => 'app, "Event Store"');
my $source = new_store('source', fsync => 'off', extension => 0);

use_seed();
my @all = projections();

# by_handler: sync; by_query: sync, and paused; copied: behind; by_type: has parked
# events; by_category: failed; totals: refreshes.
sub create_all
{
	my ($node, $database) = @_;

	create_read_models($node, $database);
	$node->safe_psql($database, <<'END');
CREATE TABLE fixed ();
ALTER FUNCTION by_category RENAME TO by_category_fixed;
ALTER FUNCTION by_type.on_paid RENAME TO on_paid_fixed;
CREATE FUNCTION refuse_poison(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF event.data ? 'poison' AND NOT EXISTS (SELECT FROM fixed) THEN
		RAISE EXCEPTION 'poison';
	END IF;
END $$;
CREATE FUNCTION by_category(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM by_category_fixed(event);
	PERFORM refuse_poison(event);
END $$;
CREATE FUNCTION by_type.on_paid(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM by_type.on_paid_fixed(event);
	PERFORM refuse_poison(event);
END $$;
CREATE MATERIALIZED VIEW totals AS SELECT stream, count(*) AS n FROM es_events GROUP BY stream;
CREATE UNIQUE INDEX ON totals (stream);
SELECT es_append_batch('order-' || i % 20, 'any', array_fill('paid'::text, ARRAY[10]), array_fill('{"n": 3}'::jsonb, ARRAY[10]))
  FROM generate_series(1, 40) AS i;
END
	create_projections($node, q{mode => 'sync'}, $database, 'by_handler', 'by_query');
	create_projections($node, 'batch_size => 30', $database, 'copied');
	create_projections($node, q{batch_size => 50, max_attempts => 1, on_failure => 'park'}, $database, 'by_type');
	create_projections($node, 'batch_size => 50, max_attempts => 1', $database, 'by_category');
	$node->safe_psql($database, q{SELECT es_create_projection('totals', refresh => 'totals', min_interval => '0')});
	return;
}

# Once half of them has been appended some are paused, behind, or fail.
sub get_into_trouble
{
	my ($node, $database) = @_;

	$node->safe_psql($database, q{
		SELECT es_append('account-1', 'any', 'paid', '{"n": 1, "poison": 1}');
		SELECT es_append('order-1', 'any', 'paid', '{"n": 1, "poison": 1}');
		SELECT es_append_batch(s, 'any', array_fill('paid'::text, ARRAY[5]), array_fill('{"n": 3}'::jsonb, ARRAY[5]))
		  FROM unnest('{account-1, order-1, order-2}'::text[]) AS s;
		SELECT es_pause_projection('by_query')});
	$node->safe_psql($database, "CALL es_work()");
	$node->safe_psql($database, q{
		SELECT es_append_batch('account-' || i, 'any', array_fill('paid'::text, ARRAY[30]), array_fill('{"n": 3}'::jsonb, ARRAY[30]))
		  FROM generate_series(1, 10) AS i});
	$node->safe_psql($database, q{SELECT es_run_projections('copied', 3)});
	$node->safe_psql($database, q{SELECT es_run_projections('by_type', 2)});
	$node->safe_psql($database, q{SELECT es_skip_event('copied', max(position), 'until it is restored') FROM es_events});
	return;
}

# What must be the same after the restore, as one value.
sub state_of
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, q{
		SELECT p::text FROM es_projections AS p ORDER BY name;
		SELECT f::text FROM es_failures AS f ORDER BY id;
		SELECT s::text FROM es_skipped_events AS s ORDER BY projection, position;
		SELECT tgname, tgenabled, tgtype, tgnewtable FROM pg_trigger
		 WHERE tgrelid = 'es_events'::regclass AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY tgname});
}

sub is_in_trouble
{
	my ($node, $database, $name) = @_;

	is($node->safe_psql($database,
			q{SELECT name, mode, state, lag_events > 0, parked > 0 FROM es_projection_status ORDER BY name}),
		"by_category|async|failed|t|f\nby_handler|sync|running|f|f\nby_query|sync|paused|t|f\n"
		  . "by_type|async|running|t|t\ncopied|async|running|t|f\ntotals|async|running|t|f",
		"$name: all kinds of states");
	return;
}

# Goes on in every way there is, until all is handled.
sub goes_on
{
	my ($node, $database, $name) = @_;
	my $count = $node->safe_psql($database, 'SELECT count(*) FROM es_events');

	is($node->safe_psql($database, q{
			SELECT count(es_unskip_event(projection, position)) FROM es_skipped_events WHERE reason = 'until it is restored'}),
		'1', "$name: what is skipped");
	equals_fold($node, "$name: at once", database => $database);
	is($node->safe_psql($database, q{SELECT string_agg(tgname, ',') FROM pg_trigger
			WHERE tgrelid = 'es_events'::regclass AND tgfoid = 'es_projection_sync'::regproc AND tgenabled <> 'D'}),
		'by_handler', "$name: the trigger of the one that is sync and runs");
	$node->safe_psql($database, q{
		SELECT es_append('account-1', 'any', 'paid', '{"n": 8}');
		SELECT es_append('new-1', 'none', 'paid', '{"n": 8, "poison": 1}')});
	catch_up($node, $database);
	equals_fold($node, "$name: caught up", database => $database);
	is($node->safe_psql($database, q{
			SELECT count(*) FROM es_failures WHERE stream = 'new-1'
			   AND id > (SELECT max(id) FROM es_failures WHERE stream <> 'new-1' AND sqlstate IS NOT NULL)}),
		'1', "$name: another failure has a new number");
	$node->safe_psql($database, q{SELECT es_resume_projection('by_query')});
	$node->safe_psql($database, q{
		INSERT INTO fixed DEFAULT VALUES;
		SELECT es_resume_projection('by_category');
		SELECT es_retry(min(id)) FROM es_failures GROUP BY stream;
		SELECT es_append('account-2', 'any', 'paid', '{"n": 9}')});
	catch_up($node, $database);
	equals_fold($node, "$name: fixed", database => $database);
	is($node->safe_psql($database, q{
			SELECT count(*), bool_and(state = 'running' AND lag_events = 0 AND parked = 0 AND attempts = 0) FROM es_projection_status}),
		'6|t', "$name: all run, and nothing is left");
	is($node->safe_psql($database, "SELECT count(*) - $count FROM es_events"), '3', "$name: no other events");
	is($node->safe_psql($database,
			q{SELECT count(*) FROM (TABLE totals EXCEPT ALL SELECT stream, count(*) FROM es_events GROUP BY stream) AS d}),
		'0', "$name: the view is refreshed");
	cmp_ok($node->safe_psql($database, q{SELECT es_rebuild_projection('by_handler')}), '>', $count, "$name: can be rebuilt");
	equals_fold($node, "$name: rebuilt", database => $database);
	return;
}

sub restore
{
	my ($node, $database, $file, @options) = @_;

	create_database($node, $database, $search_path{ $file =~ /^elsewhere/ ? 'elsewhere' : 'plain' });
	restore_database($node, $database, $file, @options);
	return;
}

foreach my $database (sort keys %search_path)
{
	create_database($source, $database, $search_path{$database});
	$source->safe_psql($database, 'CREATE SCHEMA app; CREATE SCHEMA "Event Store"')
	  if $database eq 'elsewhere';
	$source->safe_psql($database, 'CREATE EXTENSION eventstore'
		  . ($database eq 'elsewhere' ? ' SCHEMA "Event Store"' : ''));
	create_all($source, $database);
	get_into_trouble($source, $database);
	is_in_trouble($source, $database, $database);
	dump_database($source, $database, "$database.custom", '-Fc');
	dump_database($source, $database, "$database.plain", '-Fp');
	dump_database($source, $database, "$database.directory", '-Fd');
}

# Into the same cluster, and into another one.
my $target = new_store('target', fsync => 'off', extension => 0);

foreach my $database (sort keys %search_path)
{
	my $expected = state_of($source, $database);

	foreach my $how (
		[ $source, "${database}_again", "$database.plain" ],
		[ $target, "${database}_one", "$database.custom", '--single-transaction' ],
		[ $target, "${database}_jobs", "$database.directory", '-j', '3' ],
		[ $target, "${database}_text", "$database.plain" ])
	{
		my ($node, $restored, @options) = @$how;

		restore($node, $restored, @options);
		is(state_of($node, $restored), $expected, "$restored: projections, failures and triggers are the same");
		is_in_trouble($node, $restored, $restored);
		goes_on($node, $restored, $restored);
	}
	goes_on($source, $database, "$database, which was dumped");
}

# Data only, into a database that has everything else.
restore($target, 'parts', 'plain.custom', '--schema-only');
restore_database($target, 'parts', 'plain.custom', '--data-only');
$target->safe_psql('parts', 'REFRESH MATERIALIZED VIEW totals');
is_in_trouble($target, 'parts', 'data only');
goes_on($target, 'parts', 'data only');

# While events are appended and handled.
create_database($source, 'busy', 'public');
$source->safe_psql('busy', 'CREATE EXTENSION eventstore');
create_all($source, 'busy');
my $appenders = start_appenders($source, clients => 3, seconds => 120, rate => 100, database => 'busy');
my @runners = map { start_runner($source, 'busy') } 1 .. 2;
ok($source->poll_query_until('busy', q{SELECT count(*) > 3000 FROM es_events}), 'it is busy');
dump_database($source, 'busy', 'busy.custom', '-Fc');
dump_database($source, 'busy', 'busy.directory', '-Fd', '-j', '2');
end_psql($appenders, @runners);
foreach my $file (qw(busy.custom busy.directory))
{
	my $restored = $file =~ s/\./_/r;

	restore($target, $restored, $file);
	equals_fold($target, "$restored: at once", database => $restored);
	catch_up($target, $restored);
	equals_fold($target, "$restored: caught up", database => $restored);
	is($target->safe_psql($restored, q{SELECT bool_and(position = es_horizon()) FROM es_projections WHERE mode = 'async'}),
		't', "$restored: all is handled");
}

# Where the owner of one projection is missing.
create_database($source, 'owned', 'public');
$source->safe_psql('owned', q{
	CREATE EXTENSION eventstore;
	CREATE TABLE seen (projection text, position bigint);
	CREATE ROLE ann;
	ALTER TABLE seen OWNER TO ann;
	GRANT SELECT ON es_events TO ann;
	GRANT EXECUTE ON FUNCTION es_create_projection TO ann;
	SELECT es_append('a-1', 'none', 'x');
	SELECT es_create_projection('ours', query => $$INSERT INTO seen SELECT 'ours', position FROM new_events$$);
	SET ROLE ann;
	SELECT es_create_projection('of ann', query => $$INSERT INTO seen SELECT 'of ann', position FROM new_events$$, max_attempts => 1)});
dump_database($source, 'owned', 'owned', '-Fc');
restore($target, 'owned', 'owned', '--no-owner', '--no-privileges');
$target->safe_psql('owned', 'SELECT es_run_projections()');
is($target->safe_psql('owned', 'SELECT name, state, last_error FROM es_projection_status ORDER BY name'),
	qq{of ann|retrying|the owner of projection "of ann" does not exist\nours|running|}, 'the one of the missing role says so, the other runs');
$target->safe_psql('owned', q{CREATE ROLE ann; GRANT SELECT ON es_events TO ann; GRANT INSERT ON seen TO ann;
	SELECT es_resume_projection('of ann'), es_run_projections()});
is($target->safe_psql('owned', 'SELECT string_agg(projection, $$ $$ ORDER BY projection) FROM seen'), 'of ann ours',
	'and goes on when the role is there');

$_->stop foreach ($source, $target);
done_testing();
