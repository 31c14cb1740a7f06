# Whatever is killed, consumers, their connections, or the server: outside of the
# database every event is handled at least once, in the order of its stream; inside,
# exactly once.  Checkpoints never go back, and an event is acknowledged by one only.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreKills;
use EventStoreProjections;
use EventStoreSubscriptions;
use EventStoreTest;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = few_or_many(11, 22);    # there are 11 kinds
my $rate = 60;         # transactions a second, of about 15 events
my $longest = 0.9;     # seconds of a round before the kill
my $began = time();
my $folder = PostgreSQL::Test::Utils::tempdir();

# Only processes are killed: what was written is there.
my $node = new_store(
	'crash',
	fsync   => 'off',
	workers => 1,
	conf    => q{
restart_after_crash = on
deadlock_timeout = 100ms
});

# Roles that consumers have, and the processes that play them; names are fresh, mostly.
my @roles = (
	(map { { subscription => 'outside', named => $_ } } 1, 1, 1, 0, 0),
	(map { { subscription => 'inside', inside => 1, named => $_ } } 1, 0, 0));
my @consumers;
my $names = 0;

sub start_role
{
	my ($place) = @_;
	my $role = $roles[$place];
	my $before = $consumers[$place];
	my $name = $role->{named} ? 'consumer ' . ++$names : undef;

	# the same program, started again
	$name = $before->{name} if $before && rand() < 0.4;
	$consumers[$place] = start_consumer(
		folder       => $folder,
		subscription => $role->{subscription},
		inside       => $role->{inside},
		name         => $name);
	return;
}

sub replace
{
	foreach my $place (@_)
	{
		kill_consumer($consumers[$place]);
		start_role($place);
	}
	return 1;
}

my %kill = (
	'kill -9 of a consumer' => sub { replace(int rand @roles) },
	'kill -9 of all consumers' => sub { replace(0 .. $#roles) },
	'kill -9 of a connection outside' => sub { crash($node, 'outside') },
	'kill -9 of a connection inside' => sub { crash($node, 'inside') },
	'kill -9 of the postmaster' => sub { kill_postmaster($node); 1 },
	'an immediate stop' => sub { $node->stop('immediate'); $node->start; 1 },
	'a fast stop' => sub { $node->restart; 1 },
	'terminate a connection outside' => sub { signal_one($node, 'pg_terminate_backend', 'outside') },
	'terminate a connection inside' => sub { signal_one($node, 'pg_terminate_backend', 'inside') },
	'terminate all' => sub {
		$node->safe_psql('postgres', q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE application_name IN ('outside', 'inside')}) > 0;
	},
	'cancel all' => sub {
		$node->safe_psql('postgres', q{SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
			WHERE application_name IN ('outside', 'inside')}) > 0;
	});

use_seed();
$node->safe_psql('postgres', q{
	CREATE TABLE taken (at bigint GENERATED ALWAYS AS IDENTITY, position bigint, stream text, version bigint);
	SELECT es_create_subscription('outside', partitions => 9, lease => '1s', max_attempts => 6, max_in_flight => 400);
	SELECT es_create_subscription('inside', partitions => 12, lease => '1s', max_attempts => 1000)});
# A poll that looks with an old horizon, because it had to wait after it had taken it,
# must not move a checkpoint back.  A parked stream makes it look at a partition that was
# read beyond.
{
	my $fast = $node->background_psql('postgres');
	my $slow;

	$node->safe_psql('postgres', q{
		SELECT es_append('old-1', 'any', 'x') FROM generate_series(1, 3);
		SELECT es_create_subscription('old', 'old');
		SELECT es_nack('old', max(token), min(position), 'no', 'park') FROM es_poll('old');
		SELECT es_append('old-9', 'any', 'x');
		SELECT es_ack('old', max(token)) FROM es_poll('old')});
	$fast->query_safe('BEGIN; LOCK TABLE es_partitions IN ACCESS EXCLUSIVE MODE');
	$slow = start_session($node, q{SELECT count(*) FROM es_poll('old')});
	wait_until('it waits', sub { $node->safe_psql('postgres', qq{SELECT count(*) FROM pg_stat_activity
		WHERE application_name = '$slow->{name}' AND wait_event_type = 'Lock'}) });
	$node->safe_psql('postgres', q{SELECT es_append('old-2', 'any', 'x') FROM generate_series(1, 3)});
	my $checkpoint = $fast->query_safe(q{SELECT es_ack('old', max(token)) FROM es_poll('old')});
	$fast->query_safe('COMMIT');
	is(finish_session($slow), '0', 'an old horizon: nothing is delivered');
	is_query($node, q{SELECT position FROM es_partitions WHERE subscription = 'old'}, $checkpoint,
		'an old horizon: the checkpoint stays where it is');
	is_query($node, q{SELECT count(*) FROM es_poll('old')}, '0', 'an old horizon: nothing is delivered again');
	$node->safe_psql('postgres', q{SELECT es_drop_subscription('old')});
	$fast->quit;
}

append_to_file("$folder/connection", $node->connstr('postgres'));
start_role($_) foreach 0 .. $#roles;

my (%before, %count, @kinds);
my $samples = 0;

foreach my $round (1 .. $rounds)
{
	@kinds = shuffle sort keys %kill unless @kinds;
	my $kind = shift @kinds;
	my $name = "round $round ($kind)";
	my $end = time() + $longest * (0.4 + 0.6 * rand);
	my $appenders = start_appenders($node, clients => 4, seconds => 60, rate => $rate);

	while (time() < $end)
	{
		my %now = checkpoints($node);
		my @fallen = grep { $now{$_} < ($before{$_} // 0) } sort keys %now;

		is("@fallen", '', "$name: no checkpoint goes back") if @fallen;
		%before = %now;
		$samples++;
		sleep 0.05;
	}
	ok($kill{$kind}->(), "$name: there was a process to kill");
	$count{$kind}++;
	checkpoints_rise($node, \%before, $name);
	end_psql($appenders);
}

# Nothing more is appended; what was parked is tried again until nothing is left.
stop_consumers($folder, @consumers);
foreach my $place (0 .. $#roles)
{
	$consumers[$place] = start_consumer(
		folder       => $folder,
		subscription => $roles[$place]{subscription},
		inside       => $roles[$place]{inside},
		name         => $roles[$place]{named} ? "last $place" : undef,
		nacks        => 0,
		pauses       => 0);
}
wait_until('all is handled', sub {
		$node->safe_psql('postgres', q{SELECT count(es_retry(id)) FROM (SELECT min(id) AS id FROM es_failures
			WHERE message IS NOT NULL AND retry_at IS NULL GROUP BY stream) AS f});
		checkpoints_rise($node, \%before, 'at the end');
		$node->safe_psql('postgres', q{
			SELECT bool_and(lag_events = 0 AND in_flight = 0 AND parked = 0) AND NOT EXISTS (SELECT FROM es_failures)
			  FROM es_subscription_status}) eq 't' }, 0.3);
stop_consumers($folder, @consumers);

#
# What became of it
#

my %handled;     # id => first time
my (%acked, %tokens, %event);
my ($handlings, $duplicates, $acks, $void, $nacks, $unknown) = (0) x 6;
my %errors;
my @acked_again;

foreach my $line (sort { ($a->[0] eq 'H' ? $a->[1] : 0) <=> ($b->[0] eq 'H' ? $b->[1] : 0) } read_records($folder))
{
	my ($kind, @rest) = @$line;

	if ($kind eq 'H')
	{
		my ($time, $id, $stream, $version, $position, $token, $partition) = @rest;

		$handlings++;
		$event{$position} = "$partition $id $stream $version";
		if (exists $handled{$id}) { $duplicates++ }
		else { $handled{$id} = $time }
	}
	elsif ($kind eq 'A')
	{
		my ($token, @positions) = @rest;

		$acks++;
		push @acked_again, grep { $acked{$_}++ } @positions;
	}
	elsif ($kind eq 'V') { $void++ }
	elsif ($kind eq 'N') { $nacks++ }
	elsif ($kind eq '?') { $unknown++ }
	else { $errors{ $rest[0] }++ }
}

my @log = map { [ split /\|/ ] } split /\n/,
  $node->safe_psql('postgres', 'SELECT stream, version, id, position FROM es_events ORDER BY stream, version');
my (@missed, @disorder, %last);

foreach my $row (@log)
{
	my ($stream, $version, $id, $position) = @$row;
	my $time = delete $handled{$id};

	if (!defined $time) { push @missed, "$stream $version at $position"; next; }
	push @disorder, "$stream $version" if defined $last{$stream} && $time < $last{$stream};
	$last{$stream} = $time;
}
is(scalar(@missed), 0, 'outside: every event was handled') or diag(join "\n", splice @missed, 0, 10);
is(scalar(@disorder), 0, 'outside: the first time in the order of its stream') or diag(join "\n", splice @disorder, 0, 10);
is(scalar(keys %handled), 0, 'outside: and nothing that was not appended');
is(scalar(@acked_again), 0, 'outside: no event was acknowledged twice') or diag(join "\n", splice @acked_again, 0, 10);
delete @errors{qw(57014 57P01 57P02 57P03)};
is(join(', ', map { "$errors{$_} $_" } sort keys %errors), '', 'no other errors than those of the kills');
is_query($node, q{SELECT count(*) FROM es_events LEFT JOIN (SELECT position, count(*) AS n FROM taken GROUP BY position) AS t USING (position)
	WHERE n IS DISTINCT FROM 1},
	'0', 'inside: every event exactly once');
is_query($node, q{SELECT count(*) - (SELECT count(*) FROM es_events) FROM taken}, '0', 'inside: and nothing else');
is_query($node, q{SELECT count(*) FROM (SELECT version, row_number() OVER (PARTITION BY stream ORDER BY at) AS n FROM taken) AS t
	WHERE version <> n}, '0', 'inside: in the order of its stream');
is_query($node, q{SELECT count(*) FROM es_partitions WHERE leased_until IS NOT NULL
	OR tokens <> '{}' OR uptos <> '{}' OR stream IS NOT NULL}, '0', 'nothing is left in flight');
holds_versions_dense($node, 'at the end');
is(slurp_file($node->logfile) =~ /(TRAP|PANIC|segmentation)/i ? $1 : '', '', 'no failure in the log');
note(sprintf '%d rounds, %d events, %d handled outside, %d of them again, %d acks, %d void tokens, %d nacks, '
	  . '%d acks of unknown end, %d samples of checkpoints, %.1f s: %s',
	$rounds, scalar(@log), $handlings, $duplicates, $acks, $void, $nacks, $unknown, $samples, time() - $began,
	join ', ', map { "$count{$_} $_" } sort keys %count);
$node->stop;
done_testing();
