# examples/cdc.py reads a replication slot and keeps the order of positions: beside writers of every kind that
# hold transactions open, while it is killed, and after a crash of the server. The slot itself is not in that order.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Cwd qw(abs_path);
use EventStoreTest;
use EventStoreWriters;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $top = abs_path("$FindBin::RealBin/../..");
my ($python) = grep { system("$_ -c 'import psycopg, sqlite3' 2>/dev/null") == 0 } qw(/usr/bin/python3 python3);

plan skip_all => 'python3 with psycopg 3 is not here' unless $python;
use_seed();
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store('cdc', workers => 1, streaming => 1, conf => "wal_level = logical\ndeadlock_timeout = 50ms\n");

create_writers($node);
$node->safe_psql('postgres', q{CREATE PUBLICATION cdc FOR TABLE es_events, es_published_horizon WITH (publish = 'insert, update')});
# Later minor releases take only plugins that are named.
$node->psql('postgres', q{ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding, wal2json});
$node->reload;
sql($node, q{SELECT pg_create_logical_replication_slot('raw', 'test_decoding')});
my @plugins = grep { ($node->psql('postgres', "SELECT pg_create_logical_replication_slot('$_', '$_')"))[0] == 0 } qw(pgoutput wal2json);

sub start_consumer
{
	my ($plugin) = @_;

	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = 'postgres';
	return IPC::Run::start([ $python, "$top/examples/cdc.py", $plugin, $plugin, "$folder/$plugin" ], '<', '/dev/null', '>', '/dev/null', '2>>', "$folder/$plugin.err");
}

# Positions in the order in which they were written.
sub written
{
	my ($plugin) = @_;
	my $out = '';

	IPC::Run::run([ $python, '-c', <<'END', "$folder/$plugin" ], '>', \$out, '2>', '/dev/null');
import sqlite3, sys
file = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True)
print(*[row[0] for row in file.execute("SELECT position FROM events ORDER BY ordinal")], sep=",")
END
	chomp $out;
	return $out;
}

my %run = map { $_ => start_consumer($_) } @plugins;

foreach my $round (1 .. few_or_many(2, 6))
{
	write_events($node, few_or_many(2, 5), quick => 4, slow => 4);
	foreach my $plugin (@plugins)
	{
		sleep(rand 0.3);
		$run{$plugin}->kill_kill(grace => 0);
		$run{$plugin} = start_consumer($plugin);
	}
}
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN');
my $held = $holder->query_safe(q{SELECT position FROM es_append('held-1', 'any', 'e')});
write_events($node, 1, quick => 4);
sleep 1;
unlike(written($_), qr/,$held,/, "$_: what is open is not written") foreach @plugins;
is((grep { $_ > $held } split /,/, written($_)), 0, "$_: nor what is above it") foreach @plugins;
$node->stop('immediate');
$node->start;
my $lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
write_events($node, 1, quick => 4);

my $events = $node->safe_psql('postgres', q{SELECT string_agg(position::text, ',' ORDER BY position) FROM es_events});
my ($last) = $events =~ /(\d+)$/;
foreach my $plugin (@plugins)
{
	eval { wait_until("$plugin: all is written", sub { written($plugin) =~ /(?:^|,)$last$/ }, 0.3); 1 }
	  or diag("$plugin: ", slurp_file("$folder/$plugin.err"), $node->safe_psql('postgres', "SELECT $last, max(position) FROM es_published_horizon"));
	ok(written($plugin) eq $events, "$plugin: each event was written once, in the order of positions");
	ok($node->poll_query_until('postgres', "SELECT confirmed_flush_lsn > '$lsn' FROM pg_replication_slots WHERE slot_name = '$plugin'"), "$plugin: and the slot is confirmed") or
	  diag(slurp_file("$folder/$plugin.err"));
	$run{$plugin}->signal('TERM');
	$run{$plugin}->finish;
}
my @raw = split /\n/, $node->safe_psql('postgres', q{
	SELECT substring(data FROM 'es_events: INSERT: "?position"?.bigint.:(\d+)') FROM pg_logical_slot_get_changes('raw', NULL, NULL) WHERE data LIKE '%es_events: INSERT%'});
my $late = grep { $raw[$_] < $raw[ $_ - 1 ] } 1 .. $#raw;
note(scalar(@raw) . " events, of which $late come after a greater position");
cmp_ok($late, '>', 0, 'the slot is not in the order of positions');
$node->stop;
done_testing(2 * @plugins + 2 * @plugins + 1);
