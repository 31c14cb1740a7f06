# A store that is emptied again and again while workers run: what they make of the log is
# always that of the log that is there.  They miss no event and handle none twice, though
# positions begin at 1 each time, and listeners hear of all.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = few_or_many(50, 200);
my $node   = new_store('tests', streaming => 1, fsync => 'off', workers => 2,
	conf => "eventstore.test_mode = on\neventstore.poll_interval = '100ms'\neventstore.notify = worker\n");

use_seed();
$node->safe_psql('postgres', q{
	CREATE TABLE counted (stream text PRIMARY KEY, events bigint NOT NULL, last bigint NOT NULL);
	CREATE TABLE seen (position bigint PRIMARY KEY, nr bigint GENERATED ALWAYS AS IDENTITY);
	CREATE TABLE at_once (position bigint PRIMARY KEY);
	CREATE FUNCTION see(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (event.position)';
	SELECT es_create_projection('counted', tables => '{counted}', batch_size => 7, query => $$
		INSERT INTO counted SELECT stream, count(*), max(version) FROM new_events GROUP BY 1
		ON CONFLICT (stream) DO UPDATE SET events = counted.events + excluded.events, last = excluded.last $$),
		es_create_projection('seen', 'see(es_recorded_event)', tables => '{seen}'),
		es_create_projection('at_once', mode => 'sync', tables => '{at_once}', query => 'INSERT INTO at_once SELECT position FROM new_events'),
		es_create_subscription('mails', partitions => 4)});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'eventstore worker'}), 'there are two workers');

my $listener = $node->background_psql('postgres');
my $program  = $node->background_psql('postgres');
$listener->query_safe('LISTEN es_events');

# Returns true if the listener hears of this position.
sub hears_of
{
	my ($position) = @_;
	my $end = time() + 60;

	while (time() < $end)
	{
		return 1 if $listener->query_safe('SELECT 1') =~ /"es_events" with payload "$position"/;
		sleep 0.01;
	}
	return 0;
}

my ($wrong, $unheard, $late) = (0, 0, 0);

foreach my $round (1 .. $rounds)
{
	my $events = 1 + int rand 200;

	# sometimes while workers are in the middle of the last round's events
	$program->query_safe('SELECT es_reset()');
	$program->query_safe("SELECT count(es_append('s-' || i % 7, 'any', 'x')) FROM generate_series(1, $events) i");
	next if rand() < 0.3;

	$late++ if $program->query_safe(qq{SELECT es_wait('counted', $events, '60s') AND es_wait('seen', $events, '60s')}) ne 't';
	$unheard++ if !hears_of($events);
	my $is = $program->query_safe(q{SELECT (SELECT string_agg(c::text, ' ' ORDER BY stream) FROM counted c)
			IS NOT DISTINCT FROM (SELECT string_agg(e::text, ' ' ORDER BY stream) FROM (SELECT stream, count(*), max(version) FROM es_events GROUP BY 1) e),
		(SELECT string_agg(s::text, ' ' ORDER BY position) FROM seen s) = (SELECT string_agg(format('(%s,%s)', n, n), ' ' ORDER BY n) FROM generate_series(1, } . $events . q{) n),
		(SELECT count(*) FROM at_once) = (SELECT count(*) FROM es_events), es_horizon(), max(position) FROM es_events});

	$is = "$is, polled " . $program->query_safe(q{SELECT count(*) FROM es_poll('mails', 'ann', 1)});
	next if $is eq "t|t|t|$events|$events, polled 1";
	diag("round $round of $events events: $is");
	$wrong++;
}
is($late,    0, "$rounds times: projections get to the end of the log");
is($unheard, 0, 'listeners hear of it');
is($wrong,   0, 'read models are those of the log that is there');
is($node->safe_psql('postgres', q{SELECT count(*) FROM es_projections WHERE message IS NOT NULL}), '0', 'no projection has failed');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/ERROR|FATAL|PANIC/, 'nor anything else');
$_->quit foreach $listener, $program;
done_testing();
