# A shard behind a router is split under load by the steps of doc/operate/scale.md, and is killed before and after
# that. Writers append through the router. Readers page through all shards by a vector of positions.
#
# In the end every acknowledged event is stored once, in the shard of its slot, at its version, and each reader has had
# it once, in the order of its stream. Three readers are wrong on purpose, and must be found: one takes from each shard
# what the shard holds to be its own, and two begin the new shard at the split or at 0, wherever they were in its parent.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreCluster;
use EventStoreKills;
use EventStoreRouted qw($routed_folder start_child await_children is_to_stop lines_of);
use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

need_plproxy();

my $writers = 3;
my $step    = few_or_many(40, 200);

my $first  = new_store('first', streaming => 1, conf => "max_wal_senders = 10\nwal_keep_size = 256MB\nautovacuum = off\n");
my $router = new_store('router', extension => 0);

sql($first, q{SELECT es_set_slots('{[0,1024)}')});
new_router($router, 'router', connection_to($first, 'postgres'));

# Runs a statement at the router. Returns true, its rows and its error.
sub ask
{
	my ($statement, $server) = @_;
	my ($out, $err) = ('', '');
	my $connection = ($server // $router)->connstr($server ? 'postgres' : 'router');
	my $done = IPC::Run::run([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $connection, '-c', $statement ], '<', '/dev/null', '>', \$out, '2>', \$err);

	return ($done, $out, $err);
}

# What a call may fail with while a shard is down, or has given up its slots.
my $passing = qr/ERROR:  (?:08006|57P0\d|ES009)|starting up|shutting down|recovery mode|closed the connection/;

# Appends, each event until its append is acknowledged.
sub write_events
{
	my ($number) = @_;
	my %version;

	for (my $i = 1; !is_to_stop('writers'); $i++)
	{
		my $stream   = "w$number-" . (1 + $i % 12);
		my $id       = sprintf('00000000-0000-4000-8000-%04d%08d', $number, $i);
		my $expected = $version{$stream} // 0;

		while (1)
		{
			my ($done, $out, $err) = ask("SELECT version FROM es_append('$stream', $expected, 'e', id => '$id')");

			chomp $out;
			if ($done)
			{
				append_to_file("$routed_folder/acknowledged-$number", "$id $stream $out\n");
				$version{$stream} = $out;
				last;
			}
			die "$stream: $err" unless $err =~ $passing;
			append_to_file("$routed_folder/refused", ($err =~ /ERROR:  (\w+)/ ? $1 : 'other') . "\n");
			usleep(20_000);
		}
	}
	return;
}

# How a reader reads a page: its rows have id, stream, version and the positions to go on from.
my %pages = (
	right => sub { "SELECT id, stream, version, positions FROM es_read('$_[0]', 20)" },
	category => sub { "SELECT id, stream, version, positions FROM es_read_category('w1', '$_[0]', 20)" });

# Reads to the end, again and again.
sub read_events
{
	my ($name) = @_;
	my $positions = '{}';

	while (1)
	{
		my $last = is_to_stop('readers');
		my ($done, $out, $err) = ask($pages{$name}->($positions));

		die "$name: $err" unless $done || $err =~ $passing;
		foreach my $row (split /\n/, $out)
		{
			my ($id, $stream, $version, $next) = split /\|/, $row;

			append_to_file("$routed_folder/read-$name", "$id $stream $version\n");
			$positions = $next;
		}
		last if $last && $done && $out eq '';
		usleep(50_000) if $out eq '';
	}
	return;
}

sub acknowledged
{
	return lines_of(map { "acknowledged-$_" } 1 .. $writers);
}

my %slot = map { split /\|/ } split /\n/, $first->safe_psql('postgres',
	qq{SELECT s, es_partition(s, 1024) FROM (SELECT 'w' || w || '-' || n AS s FROM generate_series(1, $writers) w, generate_series(1, 12) n) x});

# A stream of the lower half that no writer has.
my $below = $first->safe_psql('postgres', q{SELECT 'x-' || n FROM generate_series(1, 100) n WHERE es_partition('x-' || n, 1024) < 512 LIMIT 1});
$slot{$below} = 0;

# Waits until so many more appends are acknowledged of streams in these slots.
sub await_appends
{
	my ($name, $from, $to, $count) = @_;
	my $of = sub { scalar(grep { my $s = $slot{ (split / /)[1] }; $s >= $from && $s < $to } acknowledged()) };
	my $known = $of->();

	wait_until($name, sub { $of->() >= $known + $count });
	return;
}

# Kills a server, and starts it again.
sub kill_shard
{
	my ($server) = @_;

	$server->stop('immediate');
	usleep(200_000);
	$server->start;
	return;
}

start_child(sub { read_events('right') });
start_child(sub { read_events('category') });
foreach my $number (1 .. $writers)
{
	start_child(sub { write_events($number) });
}
await_appends('the shard has events', 0, 1024, $step);
kill_shard($first);
await_appends('the shard goes on', 0, 1024, $step / 4);

# A reader that stops in the middle of what moves, and goes on behind the split. It knows the first shard alone.
my ($middle) = $first->safe_psql('postgres', 'SELECT max(position) / 2 FROM es_events');

#
# The split
#
my $second = PostgreSQL::Test::Cluster->new('second');
$first->backup('for_second');
$second->init_from_backup($first, 'for_second', has_streaming => 1);
$second->start;
await_appends('there are more', 0, 1024, $step / 4);
is($first->safe_psql('postgres', q{SELECT es_set_slots('{[0,512)}')}), '512', 'the shard has half of its slots');
my $last = $first->safe_psql('postgres', 'SELECT max(position) FROM es_events WHERE es_partition(stream, 1024) >= 512');
$first->wait_for_catchup($second, 'replay', $first->lsn('insert'));
is($second->safe_psql('postgres', 'SELECT max(position) FROM es_events WHERE es_partition(stream, 1024) >= 512'), $last, 'the standby has the last event');
$second->promote;
ok($second->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), 'it is promoted');
my $at = $second->safe_psql('postgres', 'SELECT max(position) FROM es_events');
$second->safe_psql('postgres', q{SELECT es_set_slots('{[512,1024)}')});
# While the map is old, readers go on reading from the first shard. Writers may all wait for streams that have moved.
foreach my $id (map { "00000000-0000-4000-8000-99990000000$_" } 1 .. 5)
{
	my ($version) = $router->safe_psql('router', "SELECT version FROM es_append('$below', 'any', 'e', id => '$id')");

	append_to_file("$routed_folder/acknowledged-1", "$id $below $version\n");
}
my ($far) = $first->safe_psql('postgres', 'SELECT max(position) FROM es_events');
$router->safe_psql('router', sprintf(q{SELECT es_split_shard(0, 1, '{[512,1024)}', '%s', %s)}, connection_to($second, 'postgres'), $at));
is($router->safe_psql('router', 'SELECT count(*) FROM es_check_shards() WHERE problem IS NOT NULL'), '0', 'the shards agree with the map');
await_appends('the lower half goes on', 0, 512, $step / 4);
await_appends('the upper half goes on', 512, 1024, $step / 4);
kill_shard($second);
await_appends('the upper half goes on after a crash', 512, 1024, $step / 4);

append_to_file("$routed_folder/stop-writers", '');
wait_until('all appends are answered', sub { my $n = acknowledged(); usleep(1_000_000); $n == acknowledged() });
append_to_file("$routed_folder/stop-readers", '');
await_children();

#
# What must be true
#
is(join('', lines_of('errors')), '', 'no writer and no reader has failed');
my %refused = map { $_ => 1 } lines_of('refused');
ok($refused{ES009}, 'appends were refused on the way');
ok($refused{'08006'}, 'and failed');

my @appended = acknowledged();
my (%stored, %owner);
foreach my $entry ([ 0, 512, $first ], [ 512, 1024, $second ])
{
	my ($from, $to, $server) = @$entry;

	$stored{$_}++ foreach split /\n/, $server->safe_psql('postgres',
		"SELECT id || ' ' || stream || ' ' || version FROM es_events WHERE es_partition(stream, 1024) >= $from AND es_partition(stream, 1024) < $to");
	holds_versions_dense($server, 'postgres');
}
note(scalar(@appended) . " appends, split at $at");
is(join("\n", grep { ($stored{$_} // 0) != 1 } @appended), '', 'every acknowledged event is stored once, in the shard that has its slot');
is(scalar(keys %stored), scalar(@appended), 'and no other event is');

# What a reader has got: events that are missing, that came twice, and that came out of the order of their streams.
sub faults_of
{
	my ($read, $wanted) = @_;
	my (%count, %version, @late);

	foreach my $line (@$read)
	{
		my ($id, $stream, $number) = split / /, $line;

		$count{$line}++;
		push @late, $line if $number != ($version{$stream} // 0) + 1;
		$version{$stream} = $number;
	}
	return (scalar(grep { !$count{$_} } @$wanted), scalar(grep { ($count{$_} // 0) > 1 } @$wanted), scalar(@late));
}

is(join(' ', faults_of([ lines_of('read-right') ], \@appended)), '0 0 0', 'a reader got every event once, in the order of its stream');
is(join(' ', faults_of([ lines_of('read-category') ], [ grep { / w1-/ } @appended ])), '0 0 0', 'and so did a reader of a category');

# Reads one page of the old map up to a position, as the router did then, and the rest by the new one.
sub read_across
{
	my ($position, $filter, %begin) = @_;
	my $rest  = join(',', map { "\"$_\": " . ($begin{$_} // $position) } sort keys %{ { 0 => 1, %begin } });
	my @lines = split /\n/, $first->safe_psql('postgres',
		"SELECT id || ' ' || stream || ' ' || version FROM es_read() WHERE position <= $position AND es_partition(stream, 1024) <@ $filter ORDER BY position");

	return [ @lines, split /\n/, $router->safe_psql('router', "SELECT id || ' ' || stream || ' ' || version FROM es_read('{$rest}')") ];
}
my $whole = "'{[0,1024)}'::int4multirange";
is(join(' ', faults_of(read_across($_, $whole), \@appended)), '0 0 0', "a reader that was at $_ under the old map") foreach (0, $middle, $last, $at, $far);

# The negative controls.
my @wrong = faults_of(read_across($far, 'es_slots()'), \@appended);
cmp_ok($wrong[0], '>', 0, 'a reader that takes what a shard holds to be its own misses events');
@wrong = faults_of(read_across($middle, $whole, 1 => $at), \@appended);
cmp_ok($wrong[0], '>', 0, 'a reader that begins a new shard at the split misses events');
@wrong = faults_of(read_across($far, $whole, 1 => 0), \@appended);
cmp_ok($wrong[1], '>', 0, 'a reader that begins a new shard at 0 gets events twice');
$_->stop foreach $router, $first, $second;
done_testing();
