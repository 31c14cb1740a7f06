# What the TAP tests share: servers with the extension, sessions, waiting, what is chosen
# at random, and what must be true of every log.
package EventStoreTest;

use strict;
use warnings;

use Exporter qw(import);
use File::Basename qw(basename);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  few_or_many use_seed
  key_file new_store new_standby
  start_psql finish_psql wait_until await_server median log_digest burn_xids
  sql is_query becomes_true holds_versions_dense holds_horizon_at_end);

my $patience = $PostgreSQL::Test::Utils::timeout_default;

# How much of something is done: few in make check, many where LONG=1 is set, as
# make check-all does.
sub few_or_many
{
	my ($few, $many) = @_;

	return $ENV{LONG} ? $many : $few;
}

# What is chosen at random depends on SEED, or on a seed that the output of the test has.
sub use_seed
{
	my $seed = $ENV{SEED} // int(time() * 1000) % 1_000_000;

	srand $seed;
	diag(sprintf '%s: seed %s; "make check ONLY=tap TESTS=%1$s SEED=%2$s%s" makes the same choices',
		basename($0, '.pl'), $seed, $ENV{LONG} ? ' LONG=1' : '');
	return;
}

# Every rule that a test relies on is a setting here, not a default of the test
# module: that one logs all statements and keeps standbys tiny.
my $settings = <<'END';
log_statement = none
max_connections = 60
max_prepared_transactions = 50
shared_buffers = 64MB
max_wal_size = 1GB
eventstore.autostart_workers = 0
eventstore.allow_drop = on
END

my $keys;

# The path of a file with a random key for eventstore.key_file, which is made once for each
# name.
sub key_file
{
	my ($name) = @_;

	$keys //= PostgreSQL::Test::Utils::tempdir();
	my $file = "$keys/" . ($name // 'key');
	return $file if -e $file;
	open my $random, '<:raw', '/dev/urandom' or die "/dev/urandom: $!";
	read($random, my $bytes, 32) == 32 or die "/dev/urandom: $!";
	close $random;
	append_to_file($file, unpack('H*', $bytes));
	chmod 0600, $file or die "$file: $!";
	return $file;
}

# A new server, running, with the extension in its database postgres, and a key file.
#   fsync      on or off
#   streaming  standbys can be made from it
#   workers    so many of the database postgres; the library is preloaded for them
#   conf       further lines of postgresql.conf
#   extension  0: do not create it
#   server     the folder of another version's bin and lib
#   initdb     further options
sub new_store
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name,
		$params{server} ? (install_path => $params{server}) : ());

	$node->init(
		allows_streaming => $params{streaming} // 0,
		extra            => [ '--no-locale', '-E', 'UTF8', @{ $params{initdb} // [] } ]);
	$node->append_conf('postgresql.conf', $settings . "eventstore.key_file = '" . key_file() . "'\n");
	$node->append_conf('postgresql.conf', "fsync = $params{fsync}")
	  if defined $params{fsync};
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'eventstore'\neventstore.databases = 'postgres'\neventstore.workers = $params{workers}")
	  if defined $params{workers};
	$node->append_conf('postgresql.conf', $params{conf})
	  if defined $params{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION eventstore')
	  if $params{extension} // 1;
	return $node;
}

# A standby of a server that was made with streaming => 1, running.  It lets queries hold
# up the replay as long as they like.
sub new_standby
{
	my ($primary) = @_;
	my $standby = PostgreSQL::Test::Cluster->new('standby');

	$primary->backup('base');
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf', 'max_standby_streaming_delay = -1');
	$standby->start;
	return $standby;
}

# A psql in the background that reads a file of statements and writes to
# OUTPUT.out and OUTPUT.err.
sub start_psql
{
	my ($node, $input, $output, @options) = @_;

	return IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
			'-d', $node->connstr('postgres'),
			@options, '-f', $input
		],
		'<', '/dev/null', '>', "$output.out", '2>', "$output.err",
		IPC::Run::timeout($patience));
}

# Waits for it; true if it came to the end of its file.
sub finish_psql
{
	my ($run) = @_;

	$run->finish;
	return $run->result == 0;
}

# Until it is true; dies if it does not become so.
sub wait_until
{
	my ($what, $test, $pause) = @_;
	my $end = time() + $patience;

	while (!$test->())
	{
		die "waited too long: $what" if time() > $end;
		sleep($pause // 0.05);
	}
	return;
}

# Until the server takes connections again, after a crash. psql gets no input: one that ends
# before it has read it would end the test, by SIGPIPE.
sub await_server
{
	my ($node, $database) = @_;

	wait_until('the server is up', sub {
		return run_log([ 'psql', '-XAtqc', 'SELECT true', '-d', $node->connstr($database) ]);
	});
	return 1;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;

	return $sorted[ $#sorted / 2 ];
}

# All that a dump must keep of the log, as one value: not the next_xids.
sub log_digest
{
	my ($node, $database) = @_;

	return $node->safe_psql($database,
		q{SELECT count(*), md5(string_agg(ROW(position, version, recorded_at, occurred_at,
		                                      id, stream, type, data, metadata)::text, '|' ORDER BY position))
		    FROM es_events});
}

# Uses up transaction ids.
sub burn_xids
{
	my ($node, $count) = @_;

	$node->safe_psql('postgres', qq{
		SET synchronous_commit = off;
		DO \$\$
		BEGIN
			FOR i IN 1 .. $count LOOP
				PERFORM pg_current_xact_id();
				COMMIT;
			END LOOP;
		END \$\$});
	return;
}

# Runs statements in the database postgres; returns what they print.
sub sql
{
	my ($node, @statements) = @_;

	return $node->safe_psql('postgres', join(";\n", @statements));
}

sub is_query
{
	my ($node, $sql, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('postgres', $sql), $expected, $name);
	return;
}

# Within the tests' patience.
sub becomes_true
{
	my ($node, $sql, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until('postgres', $sql), $name);
}

sub holds_versions_dense
{
	my ($node, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_query($node, q{
		SELECT stream, n, first, last
		  FROM (SELECT stream, count(*) AS n, min(version) AS first, max(version) AS last,
		               bool_and(ordered) AS ordered
		          FROM (SELECT stream, version,
		                       version = row_number() OVER (PARTITION BY stream ORDER BY position) AS ordered
		                  FROM (SELECT stream, version, position FROM es_events
		                        UNION SELECT stream, version, position FROM es_archived_events
		                        UNION SELECT stream, version, position FROM es_removed_ids) AS known) AS numbered
		         GROUP BY stream) AS streams
		 WHERE NOT (first = 1 AND last = n AND ordered)
		 LIMIT 10},
		'', "$name: versions are 1 to n in every stream, in the order of positions");
	return;
}

sub holds_horizon_at_end
{
	my ($node, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_query($node,
		'SELECT es_horizon() - coalesce(max(position), 0) FROM es_events',
		'0', "$name: the horizon is the last position");
	return;
}

1;
