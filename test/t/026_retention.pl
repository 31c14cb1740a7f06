# Workers apply rules of retention: nothing is removed that a consumer has not read, a kill
# loses and repeats nothing, two workers are no more than one, and the rate, the clock and
# the retry window are heeded. The space of removed events is used again.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreKills;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $streams = few_or_many(100, 400);
my $node = new_store(
	'retention',
	fsync   => 'off',
	workers => 2,
	conf    => q{
restart_after_crash = on
autovacuum_naptime = 1s
eventstore.poll_interval = 50ms
eventstore.retention_rate = 0
});

sub becomes
{
	my ($query, $name) = @_;

	becomes_true($node, $query, $name)
	  or diag(sql($node, 'SELECT * FROM es_retention'));
	return;
}

sub set_conf
{
	my ($name, $value) = @_;

	sql($node, "ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	return;
}

# So many events for each stream of a category.
sub grow
{
	my ($category, $many) = @_;

	sql($node, qq{SELECT count(es_append('$category-' || s, 'any', 'measured', to_jsonb(e)))
		FROM generate_series(1, $many) e, generate_series(1, $streams) s});
	return;
}

my $removed = 'SELECT coalesce(sum(removed), 0) FROM es_removals';

sub logged
{
	my ($pattern) = @_;

	return scalar grep { /$pattern/ } split /\n/, slurp_file($node->logfile);
}

sql($node, 'CREATE TABLE seen (position bigint)',
	q{CREATE FUNCTION see(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (event.position)'},
	q{SELECT es_create_projection('reads', 'see', tables => '{seen}', category => 'meter', batch_size => 100)},
	q{SELECT es_pause_projection('reads')});
grow('meter', 20);
sql($node, q{SELECT es_set_retention('meter', max_count => 5)});

# The rate 0
sleep 1.5;
is_query($node, $removed, '0', 'with the rate 0 workers remove nothing');
is_query($node, 'SELECT ran_at IS NULL FROM es_retention', 't', 'and run no rule');

# Held by a projection that has read nothing, or a part
set_conf('eventstore.retention_rate', 1_000_000);
becomes(q{SELECT held_by = 'projection reads' AND held_position = 0 FROM es_retention_status}, 'a projection that has read nothing holds the rule');
is_query($node, $removed, '0', 'of which nothing is removed');
sql($node, q{UPDATE es_projections SET position = (SELECT position FROM es_events WHERE es_category(stream) = 'meter' ORDER BY position OFFSET 1199 LIMIT 1)},
	q{INSERT INTO seen SELECT position FROM es_events WHERE es_category(stream) = 'meter' ORDER BY position LIMIT 1200},
	q{UPDATE es_retention SET next_run = clock_timestamp()});
becomes(q{SELECT held_position = (SELECT position FROM es_projections) FROM es_retention_status}, 'it is held where the projection is');
becomes("SELECT ($removed) > 0", 'up to there events are removed');
is_query($node, q{SELECT max(upper(positions)) - 1 <= (SELECT position FROM es_projections) FROM es_removals}, 't', 'and nothing that it has not read');

# It goes on while workers are killed, and appenders append
sql($node, q{SELECT es_resume_projection('reads')});
my $kills = few_or_many(3, 10);
foreach my $round (1 .. $kills)
{
	sql($node, 'UPDATE es_retention SET next_run = clock_timestamp(), seen_position = 0');
	set_conf('eventstore.retention_rate', 2000);
	grow('meter', 2);
	sleep 0.2 + rand 0.5;
	ok(crash($node, 'worker'), "round $round: a worker is killed");
}
set_conf('eventstore.retention_rate', 1_000_000);
sql($node, 'UPDATE es_retention SET next_run = clock_timestamp()');
my $all = $streams * (20 + 2 * $kills);
my $left = $streams * 5;
becomes(qq{SELECT count(*) = $left AND bool_and(version > 15 + 2 * $kills) FROM es_events WHERE es_category(stream) = 'meter'},
	'the newest events of each stream are left');
is_query($node, $removed, $all - $left, 'each of the others was removed once');
is_query($node, 'SELECT count(*) FROM es_removed_ids', $all - $left, 'and its id is kept');
is_query($node, q{SELECT removed FROM es_retention}, $all - $left, 'and counted by the rule');
becomes("SELECT count(*) = $all AND count(DISTINCT position) = $all FROM seen", 'the projection has seen each event once');
is(logged('ERROR:|deadlock'), 0, 'two workers do not disturb each other');

# The rate, of both workers together
set_conf('eventstore.retention_rate', 200);
grow('slow', 12);
sql($node, q{SELECT es_set_retention('slow', max_count => 1)});
becomes(q{SELECT removed > 0 FROM es_retention WHERE category = 'slow'}, 'at a low rate the rule runs');
my $before = sql($node, q{SELECT removed FROM es_retention WHERE category = 'slow'});
my $began = time();
sleep 3;
my $after = sql($node, q{SELECT removed FROM es_retention WHERE category = 'slow'});
my $took = time() - $began;
cmp_ok($after - $before, '<=', 200 * ($took + 1.5), 'no faster than that');
cmp_ok($after - $before, '>', 0, 'and goes on');

# A clock that was ahead has left times that are far ahead
set_conf('eventstore.retention_rate', 1_000_000);
sql($node, q{UPDATE es_retention SET next_run = clock_timestamp() + interval '1 year', paced_until = clock_timestamp() + interval '1 year'});
becomes(q{SELECT count(*) = count(DISTINCT stream) FROM es_events WHERE es_category(stream) = 'slow'}, 'times in the far future stop no rule');

# By age, when it is time
sql($node, q{SELECT es_set_retention('meter'), es_set_retention('slow')});
grow('door', 3);
sql($node, q{SELECT es_set_retention('door', max_age => '3 seconds')});
is_query($node, q{SELECT count(*) FROM es_events WHERE es_category(stream) = 'door'}, 3 * $streams, 'events that are young stay');
becomes(qq{SELECT count(*) = $streams FROM es_events WHERE es_category(stream) = 'door'}, 'and go when they are too old, but for the last ones');

# A rule that fails is noted, tried again, and does not stop another
sql($node, q{SELECT es_set_retention('door')},
	q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$},
	q{CREATE TRIGGER refuse BEFORE INSERT ON es_removals FOR EACH ROW WHEN (new.stream LIKE 'bad-%') EXECUTE FUNCTION refuse()});
grow('bad', 2);
grow('good', 2);
sql($node, q{SELECT es_set_retention('bad', max_count => 1), es_set_retention('good', max_count => 1)});
becomes(q{SELECT last_error = 'not this one' AND attempts > 1 FROM es_retention_status WHERE category = 'bad'}, 'an error is noted, and the rule tried again');
becomes(qq{SELECT count(*) = $streams FROM es_events WHERE es_category(stream) = 'good'}, 'another rule goes on');
is_query($node, q{SELECT count(*) FROM es_events WHERE es_category(stream) = 'bad'}, 2 * $streams, 'nothing is removed by the one that fails');
is(logged('retention of category "bad" fails: not this one'), 1, 'the error is in the log once');
sql($node, 'DROP TRIGGER refuse ON es_removals', 'UPDATE es_retention SET next_run = clock_timestamp()');
becomes(qq{SELECT count(*) = $streams FROM es_events WHERE es_category(stream) = 'bad'}, 'it ends when the cause is gone');
is_query($node, q{SELECT last_error IS NULL FROM es_retention_status WHERE category = 'bad'}, 't', 'and the error with it');

# A stream that is locked for long is left, and the others are not
sql($node, q{SELECT es_set_retention('bad'), es_set_retention('good')});
grow('busy', 2);
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT es_append('busy-1', 'any', 'measured'); SAVEPOINT s;});
sql($node, q{SELECT es_set_retention('busy', max_count => 1)});
becomes(q{SELECT count(*) = (SELECT count(DISTINCT stream) - 1 FROM es_events WHERE es_category(stream) = 'busy')
	FROM es_removals WHERE stream LIKE 'busy-%'}, 'streams that are not locked are shortened');
becomes(q{SELECT left_streams = 1 FROM es_retention_status WHERE category = 'busy'}, 'the locked one is left');
$holder->query_safe('COMMIT');
$holder->quit;
sql($node, q{UPDATE es_retention SET next_run = clock_timestamp()});
becomes(q{SELECT count(*) = 1 FROM es_events WHERE stream = 'busy-1'}, 'and shortened when it is free');

# Ids are purged
sql($node, q{SELECT es_set_retention('busy')});
is_query($node, 'SELECT count(*) > 1000 FROM es_removed_ids', 't', 'ids are kept');
sql($node, 'ALTER SYSTEM SET eventstore.retry_window = 1');
$node->restart;
becomes('SELECT count(*) = 0 FROM es_removed_ids', 'and purged after the retry window');

# The space is used again
my @sizes;
sql($node, q{SELECT es_set_retention('meter', max_count => 5)});
foreach my $wave (1 .. 6)
{
	grow('meter', 20);
	sql($node, 'UPDATE es_retention SET next_run = clock_timestamp()');
	becomes(qq{SELECT count(*) = $left FROM es_events WHERE es_category(stream) = 'meter'}, "wave $wave is removed");
	sql($node, 'SELECT pg_stat_force_next_flush()');
	becomes(q{SELECT n_dead_tup < 1000 FROM pg_stat_user_tables WHERE relname = 'es_events'}, 'autovacuum has come') if $wave > 1;
	push @sizes, sql($node, q{SELECT pg_relation_size('es_events')});
}
cmp_ok($sizes[-1], '<=', 1.5 * $sizes[1], "the log does not grow: @sizes");

$node->stop;
done_testing();
