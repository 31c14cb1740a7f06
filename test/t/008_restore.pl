# What an administrator adds to the tables of the store comes along in every form of copy.
# A store with every kind of addition, and rows in each table, is copied in every way.  The
# copy has the same definitions and rows, and each role reads and appends there what it did
# before.  Until then nobody but the owner reads, and nobody appends.
#
# EventStoreCopies has the store.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreCopies;
use EventStoreDumps;
use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('store', fsync => 'off', extension => 0, streaming => 'logical');
my $other = new_store('other', fsync => 'off', extension => 0, conf => 'wal_level = logical');

# The guards come back after ENABLE TRIGGER ALL, in the same command.
sub keeps_guards
{
	my ($server, $database, $name) = @_;

	foreach my $enable ('ENABLE TRIGGER ALL', 'ENABLE TRIGGER USER', 'ENABLE TRIGGER es_events_refuse, ENABLE TRIGGER es_events_refuse_row')
	{
		like(($server->psql($database, "BEGIN; ALTER TABLE es_events DISABLE TRIGGER ALL, $enable; SET LOCAL session_replication_role = replica; DELETE FROM es_events; COMMIT"))[2],
			qr/events cannot be changed or removed/, "$name: refused after $enable");
	}
	return;
}

# Not with --exit-on-error: a role may be missing, and GRANTs fail.
sub restore
{
	my ($server, $database, $file, @options) = @_;

	restore_database($server, $database, $file, @options);
	return;
}

# What a script says that goes on after errors.
sub errors_of
{
	my ($server, $file) = @_;
	my $said = '';

	IPC::Run::run([ 'psql', '-Xq', '-d', $server->connstr('postgres'), '-f', dump_file($file) ], '>', \my $output, '2>', \$said);
	return join "\n", $said =~ /ERROR:  (.*)/g;
}

make_roles($_) foreach ($node, $other);
make_source($node, 'source', 'public');
make_source($node, 'apart', 'Event Store');
is_filled($node, 'source');
my %state = map { $_ => state_of_copy($node, $_) } qw(source apart);
dump_database($node, 'source', 'source.plain');
dump_database($node, 'source', 'source.custom', '-Fc');
dump_database($node, 'source', 'source.folder', '-Fd', '-j', '2');
dump_database($node, 'apart', 'apart.custom', '-Fc');
$node->command_ok([ 'pg_dumpall', '-d', $node->connstr('postgres'), '-f', dump_file('all.plain') ], 'pg_dumpall');

# Each form.
foreach my $how (
	[ $other, 'plain', 'source.plain' ],
	[ $other, 'custom', 'source.custom' ],
	[ $node, 'jobs_one', 'source.folder', '-j', '1' ],
	[ $other, 'jobs_four', 'source.folder', '-j', '4' ])
{
	my ($server, $database, $file, @options) = @$how;

	create_database($server, $database, 'public');
	restore($server, $database, $file, @options);
	is_same($server, $database, $state{source}, $database);
}
# pg_dump of PostgreSQL 18 adds tables of ours to publications itself.
{
	my $add = 'ALTER PUBLICATION whole ADD TABLE ONLY public.es_events';

	like(($other->psql('custom', $add))[2], qr/already member/, 'a table is added to a publication once');
	$other->safe_psql('custom', "SET row_security = off; $add");
	is_same($other, 'custom', $state{source}, 'added by the dump as well');
}
create_database($other, 'one', 'public');
restore($other, 'one', 'source.custom', '--single-transaction');
is_same($other, 'one', $state{source}, 'in one transaction, which needs nothing else');

create_database($other, 'apart', '"Event Store", public');
restore($other, 'apart', 'apart.custom');
is_same($other, 'apart', $state{apart}, 'in another schema');

# By section.  What comes before the data is closed already.
create_database($other, 'sections', 'public');
restore($other, 'sections', 'source.custom', '--section=pre-data');
is_closed($other, 'sections', 'before the data');
restore($other, 'sections', 'source.custom', '--section=data');
is_closed($other, 'sections', 'after the data');
restore($other, 'sections', 'source.custom', '--section=post-data');
is_same($other, 'sections', $state{source}, 'sections');

# Data alone, into a store that was made by hand, in another schema, and is open; without triggers.
foreach my $how ([ 'data', 'public' ], [ 'untriggered', 'public', '--disable-triggers' ])
{
	my ($database, $schema, @options) = @$how;

	create_database($other, $database, "$schema, public");
	restore($other, $database, 'source.custom', '--schema-only');
	$other->safe_psql($database, 'SELECT count(*) FROM es_finish_restore(true)');
	is($other->safe_psql($database, q{SELECT string_agg(polname, ' ' ORDER BY polname) FROM pg_policy}), 'es_personal es_personal_delete', "$database: open, with nothing of it");
	restore($other, $database, 'source.custom', '--data-only', @options);
	is_closed($other, $database, $database);
	is($other->safe_psql($database, q{SELECT string_agg(name, ', ' ORDER BY name) FROM es_finish_restore() WHERE result = 'restored' AND kind IN ('constraint', 'policy')}),
		@options ? 'accounts, all of it, apart, known, later, not_second, of_event, of_projection, once, short, sleeps' : 'known', "$database: finished");
	is_same($other, $database, $state{source}, $database);
}

# A dump without the definitions, and what is not the store at all.
create_database($other, 'structure', 'public');
restore($other, 'structure', 'source.custom', '--schema-only');
is_closed($other, 'structure', 'structure alone');
is($other->safe_psql('structure', q{SELECT kind, result FROM es_finish_restore()}), 'definitions|missing', 'structure alone: says so');
is_closed($other, 'structure', 'structure alone, after that');
is($other->safe_psql('structure', q{SELECT kind, result FROM es_finish_restore(discard => true)}), 'definitions|discarded', 'it can be opened');
like(answer($other, 'structure', 'writer', q{SELECT version FROM es_append('account-1', 'any', 'paid')}), qr/^\(1\)$/, 'and is open');

# A role is missing: the store stays closed until it is there.
my $bare = new_store('bare', fsync => 'off', extension => 0, conf => 'wal_level = logical');
make_roles($bare, grep { $_ ne 'account_reader' } copied_roles());
create_database($bare, 'missing', 'public');
restore($bare, 'missing', 'source.custom', '--no-owner', '--no-privileges');
is($bare->safe_psql('missing', q{SELECT DISTINCT kind, name, message FROM es_finish_restore() WHERE result = 'failed' ORDER BY 2}),
	qq{policy|accounts|role "account_reader" does not exist\npolicy|not_second|role "account_reader" does not exist}, 'a missing role is named');
like(answer($bare, 'missing', 'postgres', q{SELECT es_append('account-1', 'any', 'paid')}), qr/^error 55000/, 'and nothing is open');
$bare->safe_psql('missing', q{CREATE ROLE account_reader});
is($bare->safe_psql('missing', q{SELECT count(*) FROM es_finish_restore() WHERE result = 'restored' AND kind = 'policy'}), '2', 'with the role they are there');
grant_again($bare, 'missing');
is_same($bare, 'missing', $state{source}, 'after the role was made');

# Every database of a cluster, with its roles.
my $whole = new_store('whole', fsync => 'off', extension => 0, conf => 'wal_level = logical');
is(errors_of($whole, 'all.plain'), 'role "' . $whole->safe_psql('postgres', 'SELECT current_user') . '" already exists', 'pg_dumpall: one role is there');
is_same($whole, $_, $state{$_}, "pg_dumpall: $_") foreach qw(source apart);

# Copies that go on by themselves; one of a store that is closed is closed.
sub make_template
{
	my ($from, $database) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE $from");
	$node->safe_psql('postgres', "ALTER DATABASE $database SET search_path = public");
	return;
}

create_database($node, 'half', 'public');
restore($node, 'half', 'source.custom', "--section=$_") foreach qw(pre-data data);
make_template('source', 'template');
make_template('half', 'half_template');
is_same($node, 'template', $state{source}, 'TEMPLATE');
keeps_guards($node, 'template', 'guards');
is_closed($node, 'half_template', 'TEMPLATE of a closed store');
$node->backup('base');
my $physical = PostgreSQL::Test::Cluster->new('physical');
$physical->init_from_backup($node, 'base');
$physical->start;
is_same($physical, 'source', $state{source}, 'pg_basebackup');
is_same($physical, 'apart', $state{apart}, 'pg_basebackup of another schema');
keeps_guards($physical, 'source', 'guards of a base backup');
is_closed($physical, 'half', 'pg_basebackup of a closed store');
$physical->safe_psql('half', 'CREATE PUBLICATION whole; CREATE PUBLICATION part; SELECT count(*) FROM es_finish_restore()');
is_same($physical, 'half', $state{source}, 'pg_basebackup, and finished there');

# Rows that are missing after a restore: it says so, and stays closed.
sub lacks_rows
{
	my ($database, $missing) = @_;

	is($other->safe_psql($database, q{SELECT kind, table_name, message FROM es_finish_restore() WHERE result NOT IN ('restored', 'present', 'to do')}),
		$missing, "$database: says what is missing");
	is_closed($other, $database, $database);
	is($other->safe_psql($database, q{SELECT kind, table_name, message FROM es_finish_restore(discard => true) WHERE result = 'discarded'}),
		$missing, "$database: can be opened without it");
	unlike(answer($other, $database, 'writer', q{SELECT es_append('account-1', 'any', 'paid')}), qr/^error/, "$database: and is open");
	return;
}

# The dump without a row of a table.
sub restore_without
{
	my ($database, $row) = @_;
	my $text = slurp_file(dump_file('source.plain'));

	$text =~ s/$row/$1/ or die "$database: there is no such row";
	append_to_file(dump_file("$database.plain"), $text);
	create_database($other, $database, 'public');
	restore($other, $database, "$database.plain");
	return;
}

my ($events, $last) = split /\|/, $node->safe_psql('source', 'SELECT count(*), max(position) FROM es_events');
my $fewer = sprintf 'the table has %d rows, in the dump it has %d', $events - 1, $events;

restore_without('first_event', qr/^(COPY public\.es_events .*\n)1\t.*\n/m);
lacks_rows('first_event', "rows|es_events|$fewer");
restore_without('last_event', qr/^(COPY public\.es_events .*\n(?:.*\n)*?)$last\t.*\n/m);
lacks_rows('last_event', sprintf "events|es_events|the log ends at position %d, in the dump it does at %d\nrows|es_events|$fewer", $last - 1, $last);
restore_without('subscription', qr/^(COPY public\.es_subscriptions .*\n).*\n/m);
lacks_rows('subscription', 'rows|es_subscriptions|the table has 1 rows, in the dump it has 2');
create_database($other, 'deleted', 'public');
restore($other, 'deleted', 'source.custom', "--section=$_") foreach qw(pre-data data);
like(($other->psql('deleted', 'SET session_replication_role = replica; DELETE FROM es_events WHERE position = 1'))[2],
	qr/events cannot be changed or removed/, 'an event is not deleted before the restore is finished');
$other->safe_psql('deleted', q{SET session_replication_role = replica; ALTER TABLE es_events DISABLE TRIGGER USER; DELETE FROM es_events WHERE position = 1;
	ALTER TABLE es_events ENABLE TRIGGER USER; CREATE PUBLICATION whole; CREATE PUBLICATION part});
lacks_rows('deleted', "rows|es_events|$fewer");

# A dump of a copy, and of a store that is closed.
dump_database($other, 'plain', 'again.custom', '-Fc');
create_database($other, 'again', 'public');
restore($other, 'again', 'again.custom', '--single-transaction');
is_same($other, 'again', $state{source}, 'a copy of a copy');
create_database($other, 'unfinished', 'public');
restore($other, 'unfinished', 'source.custom', '--section=pre-data');
restore($other, 'unfinished', 'source.custom', '--section=data');
is($other->safe_psql('unfinished', q{SELECT object, remedy FROM es_health WHERE problem = 'restore_unfinished'}),
	'table public.es_events|SELECT * FROM public.es_finish_restore()', 'es_health says what to do');
dump_database($other, 'unfinished', 'unfinished.custom', '-Fc');
create_database($other, 'unfinished_again', 'public');
restore($other, 'unfinished_again', 'unfinished.custom');
is_closed($other, 'unfinished_again', 'a copy of a closed store');
$other->safe_psql('unfinished_again', 'CREATE PUBLICATION whole; CREATE PUBLICATION part');
$other->safe_psql('unfinished_again', 'SELECT count(*) FROM es_finish_restore()');
is_same($other, 'unfinished_again', $state{source}, 'a copy of a closed store');

# A security label whose provider is not there keeps the store closed, and is named.
create_database($other, 'labelled', 'public');
$other->safe_psql('labelled', q{CREATE EXTENSION eventstore;
	INSERT INTO pg_seclabel VALUES ('es_events'::regclass, 'pg_class'::regclass, 0, 'no provider', 'secret')});
dump_database($other, 'labelled', 'labelled.custom', '-Fc');
create_database($other, 'labelled_again', 'public');
restore($other, 'labelled_again', 'labelled.custom');
like(($other->psql('labelled_again', q{SELECT es_append('account-1', 'any', 'paid')}))[2], qr/the event store is closed/, 'a missing provider closes it');
is($other->safe_psql('labelled_again', 'SELECT kind, name, result, message FROM es_finish_restore()'),
	'label|TABLE es_events|failed|security label provider "no provider" is not loaded', 'a missing provider is named');

# Row security that is forced on an owner without SUPERUSER hides no row from the dump's count.
create_database($other, 'forced', 'public');
$other->safe_psql('forced', q{CREATE ROLE dba SUPERUSER; SET ROLE dba; CREATE EXTENSION eventstore; RESET ROLE; ALTER ROLE dba NOSUPERUSER;
	GRANT USAGE ON SCHEMA public TO dba; SELECT es_append('account-1', 'any', 'paid') FROM generate_series(1, 3);
	ALTER TABLE es_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY first ON es_events USING (position = 1)});
dump_database($other, 'forced', 'forced.custom', '-Fc');
create_database($other, 'forced_again', 'public');
restore($other, 'forced_again', 'forced.custom');
is($other->safe_psql('forced_again', 'SELECT count(*) FROM es_finish_restore()'), '0', 'row security that is forced: nothing is left to finish');
like($other->safe_psql('forced', 'TABLE es_user_definitions'), qr/"position": 3, "rows": \{"es_events": 3,/, 'and all rows count');

# A row that somebody plants, and statements that are none of a dump.
$other->safe_psql('plain', 'GRANT INSERT, UPDATE, SELECT ON es_user_definitions TO writer; GRANT EXECUTE ON FUNCTION es_definitions_arrive TO writer');
my $evil = '{"schema": "public", "position": 0, "definitions": [%s]}';
my $superuser = '{"kind": "policy", "table": "es_events", "name": "x", "statement": "ALTER ROLE writer SUPERUSER"}';

like(answer($other, 'plain', 'writer', sprintf("INSERT INTO es_user_definitions VALUES (\$\$$evil\$\$)", $superuser)),
	qr/^error 42501 permission denied to restore definitions/, 'a planted row is refused');
like(answer($other, 'plain', 'writer', sprintf("UPDATE es_user_definitions SET definitions = \$\$$evil\$\$", $superuser)),
	qr/^error 42501 permission denied to restore definitions/, 'so is a changed one');
foreach my $case (
	[ 'another statement', 'ALTER ROLE writer SUPERUSER' ],
	[ 'two statements', 'COMMENT ON TABLE es_events IS NULL; ALTER ROLE writer SUPERUSER' ],
	[ 'another table', 'ALTER TABLE audited ENABLE ROW LEVEL SECURITY' ],
	[ 'another alteration', 'ALTER TABLE es_events OWNER TO writer' ],
	[ 'two alterations', 'ALTER TABLE es_events ENABLE ROW LEVEL SECURITY, OWNER TO writer' ],
	[ 'a guard that is disabled', 'ALTER TABLE es_events DISABLE TRIGGER es_events_refuse' ],
	[ 'a publication of all', 'ALTER PUBLICATION whole SET TABLE audited' ])
{
	my ($what, $statement) = @$case;
	my $item = qq{{"kind": "policy", "table": "es_events", "name": "x", "statement": "$statement"}};

	$other->safe_psql('plain', sprintf("SET client_min_messages = error; INSERT INTO es_user_definitions VALUES (\$\$$evil\$\$)", $item));
	like($other->safe_psql('plain', 'SELECT result, message FROM es_finish_restore(discard => true)'), qr/^discarded\|a definition of a restore is refused/, "refused: $what");
}
is($other->safe_psql('plain', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'writer'}), 'f', 'nothing of it has run');
is(state_of_copy($other, 'plain')->{abilities}, $state{source}{abilities}, 'and each role can do what it could');

$_->stop foreach ($node, $other, $bare, $whole, $physical);
done_testing();
