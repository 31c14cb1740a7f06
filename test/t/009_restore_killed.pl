# Restores that are killed, and es_finish_restore().  At no moment somebody sees or appends more
# than in the source.  What was interrupted goes on where it was, and comes out the same.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreCopies;
use EventStoreDumps;
use EventStoreKills;
use EventStoreTest;
use IPC::Run;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use_seed();
my $node = new_store('store', fsync => 'off', extension => 0, conf => "wal_level = logical\nrestart_after_crash = on");
my $expected;

make_roles($node);
make_source($node, 'source', 'public');
$expected = state_of_copy($node, 'source');
dump_database($node, 'source', 'source.plain');
dump_database($node, 'source', 'source.custom', '-Fc');
dump_database($node, 'source', 'source.folder', '-Fd');

# So many of them, at random; all with LONG=1.
sub some_of
{
	my ($few, @all) = @_;

	return (shuffle @all)[ 0 .. few_or_many($few, scalar @all) - 1 ];
}

# What there is of a copy is not more open than the source, as soon as somebody could read it.
sub hides_all
{
	my ($database, $name) = @_;

	is_not_more_open($node, $database, $expected, $name)
	  if $node->safe_psql($database, q{SELECT to_regprocedure('public.answer(text, text)') IS NOT NULL AND to_regclass('es_events') IS NOT NULL}) eq 't';
	return;
}

sub finish
{
	my ($database, $name) = @_;

	$node->safe_psql($database, 'SELECT count(*) FROM es_finish_restore()');
	is_same($node, $database, $expected, $name);
	$node->safe_psql('postgres', "DROP DATABASE $database");
	return;
}

#
# A session that loads the dump is killed, before it loads a table
#

foreach my $table (some_of(2, $node->safe_psql('source', q{SELECT string_agg(t::regclass::text, ' ') FROM pg_extension, unnest(extconfig) t WHERE extname = 'eventstore' AND t::regclass::text !~ '_id_seq$|es_position'}) =~ /\w+/g))
{
	my $database = "at_$table";
	my $text = slurp_file(dump_file('source.plain'));

	$text =~ s/^(COPY public\.$table )/SELECT pg_terminate_backend(pg_backend_pid());\n$1/m or die "no $table";
	create_database($node, $database, 'public');
	append_to_file(dump_file("$database.plain"), $text);
	isnt(system('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', dump_file("$database.plain")),
		0, "$database: the restore is killed");
	grant_again($node, $database);
	is_closed($node, $database, $database);
	$node->safe_psql('postgres', "DROP DATABASE $database");
}

#
# A restore ends after some entry of its dump, and another one goes on
#

my @entries = do
{
	my $list = '';

	IPC::Run::run([ 'pg_restore', '-l', dump_file('source.custom') ], '>', \$list) or die 'pg_restore -l does not work';
	grep { !/^;/ } split /^/, $list;
};

# Restores these entries.
sub restore_entries
{
	my ($database, $name, @some) = @_;
	my $list = dump_file("$database.$name");

	append_to_file($list, join '', @some);
	restore_database($node, $database, 'source.custom', '-L', $list);
	return;
}

cmp_ok(scalar(@entries), '>', 40, 'a dump has many entries');
foreach my $last ((shuffle 0 .. $#entries - 1)[ 0 .. few_or_many(2, 40) - 1 ])
{
	my $database = "after_$last";
	my $name = 'after ' . $entries[$last] =~ s/^\S+ \d+ \d+ |\s+$//gr;

	create_database($node, $database, 'public');
	restore_entries($database, 'first', @entries[ 0 .. $last ]);
	hides_all($database, $name);
	restore_entries($database, 'rest', @entries[ $last + 1 .. $#entries ]);
	finish($database, $name);
}

#
# Its sessions or the server are killed at any moment
#

foreach my $round (1 .. few_or_many(2, 20))
{
	my $database = "round_$round";
	my $crashes = $round % 2 == 0;

	create_database($node, $database, 'public');
	my $restore = IPC::Run::start([ 'pg_restore', '-j', '4', '-d', $node->connstr($database), dump_file('source.folder') ], '>', \my $output, '2>&1');
	sleep rand 0.8;
	if ($crashes) { kill_postmaster($node) }
	else { $node->safe_psql('postgres', "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '$database'") }
	eval { $restore->finish };
	hides_all($database, "$database: " . ($crashes ? 'the server' : 'its sessions'));
	$node->safe_psql('postgres', "DROP DATABASE $database");
}

#
# es_finish_restore() is killed while it waits for a lock
#

# Everything is loaded, and nothing replayed.
create_database($node, 'loaded', 'public');
restore_database($node, 'loaded', 'source.custom', '--schema-only');
$node->safe_psql('loaded', 'SELECT count(*) FROM es_finish_restore(true)');
restore_database($node, 'loaded', 'source.custom', '--data-only', '--disable-triggers');

# Kills es_finish_restore() when it waits for the holder of a lock.
sub kill_finisher
{
	my ($database, $holder, $crash) = @_;
	my $finisher = q{FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT count(*) FROM es_finish_restore();'};
	my $offset = -s $node->logfile;
	my $pid;

	ok($node->poll_query_until($database, "SELECT EXISTS (SELECT $finisher AND $holder = ANY (pg_blocking_pids(pid)))"),
		"$database: es_finish_restore waits in the middle");
	$pid = $node->safe_psql($database, "SELECT pid $finisher");
	if ($crash)
	{
		kill_process($pid);
		wait_for_restart($node, $offset);
	}
	else
	{
		$node->safe_psql($database, "SELECT pg_terminate_backend($pid, 60000)");
	}
	return;
}

# es_events first, where definitions are replayed; a table that a constraint reads, in the
# middle of it; all others, where the store is opened.
my @tables = grep { $_ ne 'es_events' } split /\n/, $node->safe_psql('loaded',
	q{SELECT DISTINCT polrelid::regclass FROM pg_policy WHERE polname = 'es_closed' ORDER BY 1});
my $number = 0;

cmp_ok(scalar(@tables), '>', 13, 'each table is closed');
foreach my $table ('es_events', 'kinds', some_of(1, @tables))
{
	my $database = "finish_$table";
	my $crash = $number++ % 3 == 1;

	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE loaded");
	$node->safe_psql('postgres', "ALTER DATABASE $database SET search_path = public");
	my $holder = $node->background_psql($database);
	$holder->query_safe('BEGIN');
	$holder->query_safe("LOCK TABLE $table IN ACCESS " . ($table eq 'kinds' ? 'EXCLUSIVE' : 'SHARE') . ' MODE');
	my $finisher = $node->background_psql($database);
	$finisher->query_until(qr/begun/, "\\echo begun\nSELECT count(*) FROM es_finish_restore();\n");
	kill_finisher($database, $holder->query_safe('SELECT pg_backend_pid()'), $crash);
	eval { $_->quit } foreach ($holder, $finisher);
	ok(await_server($node, $database), "$database: the server is up");
	is_closed($node, $database, $database);
	finish($database, $database);
}

$node->stop;
done_testing();
