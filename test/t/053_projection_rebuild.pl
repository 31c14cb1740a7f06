# A rebuild while the read model is read and events go on arriving: readers see all
# rows at any time and wait for nothing; whatever ends the rebuild before its end
# leaves the old rows, which the projection keeps up to date meanwhile; and what
# comes out is the fold of the log.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreKills;
use EventStoreProjections;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $events = 20_000;
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store(
	'rebuild',
	fsync   => 'off',
	workers => 2,
	conf    => q{
restart_after_crash = on
});

use_seed();

# The column that only grows as events arrive, of each read model.
my %grows = (by_handler => 'sum(n)', by_query => 'sum(n)', copied => 'count(nullif(position, -1))');
my @names = sort keys %grows;
my (@runners, $appenders, %reader, %before);

#
# Readers
#

sql($node, 'CREATE TABLE ended ()');

# Reads again and again; fails when it must wait for a lock, or sees less than
# before.
sub start_readers
{
	my ($round) = @_;

	foreach my $name (@names)
	{
		my $file = "$folder/reader-$name-$round";

		append_to_file("$file.sql", <<"END");
SET lock_timeout = '200ms';
SET client_min_messages = info;
DO \$\$
DECLARE
	before bigint := (SELECT $grows{$name} FROM $name);
	now bigint;
	reads int := 0;
	began timestamptz;
	longest interval := '0';
BEGIN
	LOOP
		began := clock_timestamp();
		SELECT $grows{$name} INTO now FROM $name;
		longest := greatest(longest, clock_timestamp() - began);
		reads := reads + 1;
		IF now IS NULL OR now < before THEN
			RAISE EXCEPTION 'seen % after %', now, before;
		END IF;
		before := now;
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM ended);
		PERFORM pg_sleep(0.003);
	END LOOP;
	RAISE INFO 'reads % longest %', reads, extract(epoch FROM longest);
END \$\$;
END
		local $ENV{PGAPPNAME} = 'reader';
		$reader{$name} = { file => $file, psql => start_psql($node, "$file.sql", $file) };
	}
	wait_until('readers', sub { pids_of($node, 'reader') == @names });
	return;
}

# crashed: their connection has ended; until then they had nothing to say.
sub readers_end
{
	my ($name, $crashed) = @_;
	my ($reads, $longest) = (0, 0);

	sql($node, 'INSERT INTO ended DEFAULT VALUES') unless $crashed;
	foreach my $projection (@names)
	{
		my $ended = finish_psql($reader{$projection}{psql});
		my $err = slurp_file("$reader{$projection}{file}.err");

		local $Test::Builder::Level = $Test::Builder::Level + 1;
		if ($crashed)
		{
			unlike($err, qr/seen|lock timeout/, "$name: readers of $projection saw all rows");
			next;
		}
		ok($ended, "$name: readers of $projection see all rows all the time, and wait for no lock")
		  or diag($err);
		if ($err =~ /reads (\d+) longest ([\d.]+)/)
		{
			$reads += $1;
			$longest = $2 if $2 > $longest;
		}
	}
	sql($node, 'TRUNCATE ended');
	return ($reads, $longest);
}

#
# Rebuilds
#

# Starts runners and appenders, if there are none; appenders must not wait long.
sub keep_going
{
	local $ENV{PGOPTIONS} = '-c lock_timeout=20s';

	@runners = map { $_->pumpable ? $_ : do { end_psql($_); () } } @runners;
	push @runners, start_runner($node) while @runners < 2;
	end_psql($appenders) if $appenders && !$appenders->pumpable;
	$appenders = start_appenders($node, clients => 3, seconds => 150, rate => 40)
	  unless $appenders && $appenders->pumpable;
	wait_until('appenders', sub { pids_of($node, 'appender') });
	return;
}

my $rebuilds = 0;

sub start_rebuild
{
	my ($name) = @_;
	my $file = "$folder/rebuild-" . ++$rebuilds;

	append_to_file("$file.sql", "SELECT es_rebuild_projection('$name');\n");
	local $ENV{PGAPPNAME} = "rebuild $name";
	return { name => $name, file => $file, psql => start_psql($node, "$file.sql", $file) };
}

sub percent
{
	my ($name) = @_;

	return sql($node, "SELECT rebuild_percent FROM es_projection_status WHERE name = '$name'");
}

# Waits until it is so far, or over; all that was seen of it until then.
sub wait_for_percent
{
	my ($rebuild, $least) = @_;
	my @seen;

	wait_until("$rebuild->{name} is rebuilt to $least %", sub {
			push @seen, percent($rebuild->{name});
			return $seen[-1] ne '' && $seen[-1] >= $least || !$rebuild->{psql}->pumpable;
		}, 0.01);
	return @seen;
}

# What a rebuild is to fix: three rows are not the log's.
sub damage
{
	my ($name) = @_;

	sql($node, $name eq 'copied'
		? q{UPDATE copied SET stream = 'damaged' WHERE position = (SELECT min(position) FROM copied);
		    INSERT INTO copied (position, stream, version) VALUES (-1, 'damaged', 0)}
		: qq{UPDATE $name SET total = total + 1000000 WHERE stream = 'order-1';
		     INSERT INTO $name VALUES ('damaged', 0, 0, 0, 0, 0)});
	return;
}

sub is_damaged
{
	my ($name, $test) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql($node, differences($name)), '3', "$test: the old rows of $name are there, and kept up to date");
	return;
}

sub rebuilds
{
	my ($name, $test) = @_;
	my $rebuild = start_rebuild($name);
	my @seen = grep { $_ ne '' } wait_for_percent($rebuild, 50);
	my $now = sql($node, 'SELECT max(position) FROM es_events');

	# in the middle of it the projection goes on with the old rows
	is(sql($node, "SELECT es_wait('$name', $now, '60s')"), 't', "$test: $name goes on meanwhile");
	my $differences = sql($node, differences($name));
	my $refused = ($node->psql('postgres', "SELECT es_rebuild_projection('$name')"))[2];
	if (percent($name) ne '')
	{
		is($differences, '3', "$test: meanwhile the old rows are there, and kept up to date");
		like($refused, qr/is being rebuilt/, "$test: meanwhile another rebuild is refused");
	}
	while ($rebuild->{psql}->pumpable)
	{
		my $percent = percent($name);

		push @seen, $percent if $percent ne '';
	}
	ok(finish_psql($rebuild->{psql}), "$test: $name is rebuilt")
	  or diag(slurp_file("$rebuild->{file}.err"));
	cmp_ok(slurp_file("$rebuild->{file}.out"), '>', $events / 4, "$test: from the log of $name");
	is(join(', ', map { $seen[$_] < $seen[ $_ - 1 ] ? "$seen[$_] after $seen[$_ - 1]" : () } 1 .. $#seen),
		'', "$test: percents of $name rise");
	my %distinct = map { $_ => 1 } @seen;
	cmp_ok(scalar(keys %distinct), '>', 10, "$test: and are seen by another session")
	  if $name eq 'by_handler';
	is(percent($name), '', "$test: then there is no rebuild of $name any more");
	equals_fold($node, $test, projections => [$name]);
	positions_rise($node, \%before, $test);
	return;
}

create_read_models($node);
# Slow enough to be ended in the middle, on any machine.
sql($node, q{
	ALTER FUNCTION by_handler RENAME TO by_handler_quickly;
	CREATE FUNCTION by_handler(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF es_replaying() AND event.position % 250 = 0 THEN
			PERFORM pg_sleep(0.02);
		END IF;
		PERFORM by_handler_quickly(event);
	END $$});
sql($node, qq{
	INSERT INTO es_import (stream, type, data)
	SELECT (ARRAY['account-', 'order-'])[1 + i % 2] || i % 20, (ARRAY['paid', 'refunded', 'noted'])[1 + i % 3],
	       jsonb_build_object('n', i % 1000)
	  FROM generate_series(1, $events) AS i});
create_projections($node, 'batch_size => 200', 'postgres', 'by_handler', 'copied');
create_projections($node, q{batch_size => 200, mode => 'sync'}, 'postgres', 'by_query');
catch_up($node);
equals_fold($node, 'before', projections => \@names);

# It is ended before it is done, somewhere.
my %end = (
	'kill -9' => sub {
		my $offset = -s $node->logfile;
		kill_process($_[0]);
		wait_for_restart($node, $offset);
	},
	'terminated' => sub { sql($node, "SELECT pg_terminate_backend($_[0])") },
	'canceled'   => sub { sql($node, "SELECT pg_cancel_backend($_[0])") },
	'kill -9 of the postmaster' => sub { kill_postmaster($node) });
my $round = 0;
my @figures;

damage($_) foreach @names;
foreach my $how (sort keys %end)
{
	my $crash = $how =~ /kill/;
	my @rebuild;

	keep_going();
	start_readers(++$round);
	%before = positions($node);
	@rebuild = map { start_rebuild($_) } @names;
	# the others are in their swap, or done
	wait_for_percent($rebuild[0], 20 * $round);
	my @pids = map { pids_of($node, "rebuild $_->{name}") } @rebuild;
	ok(scalar(@pids), "$how: there is a rebuild to end");
	$end{$how}->($_) foreach $crash ? $pids[0] : @pids;
	foreach my $rebuild (@rebuild)
	{
		my $done = finish_psql($rebuild->{psql});

		if ($done)
		{
			is(sql($node, differences($rebuild->{name})), '0', "$how: $rebuild->{name} was done already");
			damage($rebuild->{name});
		}
		else
		{
			is_damaged($rebuild->{name}, $how);
		}
	}
	readers_end($how, $crash);
	positions_rise($node, \%before, $how);
	is_query($node, q{SELECT count(*) FROM es_projection_status WHERE rebuild_percent IS NOT NULL}, '0', "$how: no rebuild is left");
}

keep_going();
start_readers('last');
rebuilds($_, "rebuild of $_") foreach @names;
@figures = readers_end('rebuilds');
cmp_ok($figures[1], '<', 5, 'no reader has waited long');

# All at once, and again, while they are rebuilt.
damage($_) foreach @names;
keep_going();
start_readers('all');
my @all = map { start_rebuild($_) } @names;
ok(finish_psql($_->{psql}), "$_->{name}, all at once") foreach @all;
readers_end('all at once');
equals_fold($node, 'all at once', projections => \@names);
unlike(slurp_file($node->logfile), qr/lock timeout/, 'no appender has waited long, and no reader at all');
end_psql($appenders, @runners);
catch_up($node);
equals_fold($node, 'at the end', projections => \@names);
is_query($node, q{SELECT bool_and(lag_events = 0 AND state = 'running' AND attempts = 0) FROM es_projection_status}, 't',
	'at the end: nothing is wrong');
diag(sprintf 'rebuilds: %d, %d events, %d reads, the longest %.0f ms',
	$rebuilds, sql($node, 'SELECT count(*) FROM es_events'), $figures[0], 1000 * $figures[1]);
$node->stop;
done_testing();
