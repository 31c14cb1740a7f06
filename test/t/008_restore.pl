# What an administrator adds to the tables of the store comes along in every form of dump.
# A store with every kind of addition is copied in every way.  The copy has the same
# definitions, and each role reads and appends there what it did before.  Until then nobody but
# the owner reads, and nobody appends.
#
# A feature that comes with a table, or with something that can be added to one, is
# added to make_source() here.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('store', fsync => 'off', extension => 0, conf => 'wal_level = logical');
my $other = new_store('other', fsync => 'off', extension => 0, conf => 'wal_level = logical');
my @roles = (qw(account_reader writer nobody), '"Odd ""role"');

# Roles are of the cluster.
sub make_roles
{
	my ($server) = @_;

	$server->safe_psql('postgres', "CREATE ROLE $_") foreach @roles;
	return;
}

sub make_source
{
	my ($database, $schema) = @_;

	create_database($node, $database, qq{"$schema", public});
	$node->safe_psql($database, qq{CREATE SCHEMA IF NOT EXISTS "$schema"; CREATE EXTENSION eventstore SCHEMA "$schema"});
	$node->safe_psql($database, <<'END');
SELECT es_grant(r::regrole, k) FROM (VALUES ('account_reader', 'reader'), ('writer', 'writer'), ('writer', 'reader'), ('"Odd ""role"', 'reader')) v (r, k);
CREATE TABLE public.kinds (type text); INSERT INTO public.kinds VALUES ('opened'), ('paid'); GRANT SELECT ON public.kinds TO PUBLIC;
-- what a role gets of a query: its rows, or its error; nothing of it stays
CREATE FUNCTION public.answer(role text, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	EXECUTE 'SET LOCAL ROLE ' || role;
	IF query LIKE 'SELECT%' THEN
		EXECUTE format('SELECT string_agg(t::text, '' '') FROM (%s) t', query) INTO result;
	ELSE
		EXECUTE query;
	END IF;
	RAISE EXCEPTION '%', coalesce(result, 'nothing') USING errcode = 'ZZ998';
EXCEPTION WHEN OTHERS THEN
	RETURN CASE WHEN SQLSTATE = 'ZZ998' THEN SQLERRM ELSE format('error %s %s', SQLSTATE, SQLERRM) END;
END $$;
CREATE TABLE public.audited (position bigint);
CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.audited VALUES (NEW.position); RETURN NULL; END $$;
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
CREATE FUNCTION public.is_known(type text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM public.kinds k WHERE k.type = $1)';
SELECT es_append(s, 'any', 'opened', '{"name": "n"}') FROM unnest('{account-1,payroll-1,account-2}'::text[]) s;

-- row security: in use, forced, with policies and not in use
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY accounts ON es_events FOR SELECT TO account_reader USING (es_category(stream) = 'account');
CREATE POLICY "all of it" ON es_events TO writer, "Odd ""role" USING (true) WITH CHECK (type <> 'secret');
CREATE POLICY not_second ON es_events AS RESTRICTIVE FOR SELECT TO account_reader USING (stream <> 'account-2');
ALTER TABLE es_failures ENABLE ROW LEVEL SECURITY;
ALTER TABLE es_rewrites FORCE ROW LEVEL SECURITY;
CREATE POLICY sleeps ON es_inbox FOR DELETE USING (topic = 'it''s');
-- triggers: also disabled, for replicas, always, deferred, with columns and conditions
CREATE TRIGGER audit AFTER INSERT ON es_events FOR EACH ROW WHEN (NEW.type <> 'silent') EXECUTE FUNCTION audit();
CREATE TRIGGER off AFTER INSERT ON es_events FOR EACH STATEMENT EXECUTE FUNCTION refuse();
ALTER TABLE es_events DISABLE TRIGGER off;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON es_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.type = 'never') EXECUTE FUNCTION refuse();
CREATE TRIGGER on_replica AFTER UPDATE OF owner ON es_subscriptions FOR EACH ROW EXECUTE FUNCTION refuse();
ALTER TABLE es_subscriptions ENABLE REPLICA TRIGGER on_replica;
CREATE TRIGGER always BEFORE DELETE ON es_projections FOR EACH ROW WHEN (OLD.name = 'kept') EXECUTE FUNCTION refuse();
ALTER TABLE es_projections ENABLE ALWAYS TRIGGER always;
-- constraints
ALTER TABLE es_events ADD CONSTRAINT known CHECK (is_known(type)), ADD CONSTRAINT later CHECK (stream <> 'payroll-1') NOT VALID,
	ADD CONSTRAINT once UNIQUE (occurred_at, id) DEFERRABLE;
-- indexes
CREATE INDEX mine ON es_events (recorded_at DESC NULLS LAST) INCLUDE (type) WITH (fillfactor = 70) WHERE type <> 'x ON es_events ';
CREATE INDEX "Odd ""index" ON es_events USING gin (data jsonb_path_ops);
SELECT es_index_attribute('opened', 'name');
ALTER TABLE es_subscriptions REPLICA IDENTITY FULL;
CREATE UNIQUE INDEX replicated ON es_failures (id, first_failed_at);
ALTER TABLE es_failures REPLICA IDENTITY USING INDEX replicated;
-- storage, statistics, autovacuum
ALTER TABLE es_events ALTER data SET STORAGE EXTERNAL, ALTER metadata SET COMPRESSION pglz, ALTER type SET STATISTICS 500,
	ALTER stream SET (n_distinct = -0.25), ALTER metadata SET DEFAULT '{"by": "it''s"}';
ALTER TABLE es_events SET (autovacuum_vacuum_insert_threshold = 7000, toast.autovacuum_enabled = false, fillfactor = 90);
CREATE STATISTICS together ON stream, type FROM es_events;
-- rules
CREATE RULE silent AS ON UPDATE TO es_events WHERE OLD.type = 'never' DO ALSO SELECT OLD.position;
ALTER TABLE es_events DISABLE RULE silent;
CREATE RULE always AS ON DELETE TO es_inbox WHERE OLD.topic = 'kept' DO INSTEAD NOTHING;
-- comments
COMMENT ON TABLE es_events IS 'our log: it''s %s';
COMMENT ON COLUMN es_events.data IS E'two\nlines';
COMMENT ON POLICY "all of it" ON es_events IS 'a policy';
COMMENT ON TRIGGER audit ON es_events IS 'a trigger';
COMMENT ON CONSTRAINT known ON es_events IS 'a constraint';
COMMENT ON INDEX mine IS 'an index';
COMMENT ON RULE silent ON es_events IS 'a rule';
-- publications
CREATE PUBLICATION whole FOR TABLE es_events, es_rewrites;
CREATE PUBLICATION part FOR TABLE es_events (position, stream, type, data) WHERE (position > 1);
END
	return;
}

# The definitions, a line each.  With the names of schemas where the server always writes them.
sub definitions
{
	my ($server, $database) = @_;
	my $rows = $server->safe_psql($database, 'TABLE es_user_definitions');

	$rows =~ s/^.*?"definitions": \[//s;
	$rows =~ s/\}, \{/\n/g;
	$rows =~ s/ STATISTICS [^ .]+\./ STATISTICS /g;
	return $rows;
}

# What a role gets of a query.
sub answer
{
	my ($server, $database, $role, $query) = @_;

	return $server->safe_psql($database, "SELECT public.answer(\$r\$$role\$r\$, \$q\$$query\$q\$)");
}

# What each role can read and append.
sub abilities
{
	my ($server, $database) = @_;
	my $roles = join ', ', map { "\$r\$$_\$r\$" } @roles;

	return $server->safe_psql($database, <<"END");
SELECT r, q, public.answer(r, q) FROM unnest(ARRAY[$roles]) WITH ORDINALITY AS roles (r, rn), unnest(ARRAY[
	'SELECT stream FROM es_events ORDER BY position',
	'SELECT stream FROM es_read()',
	'SELECT version FROM es_load(''payroll-1'')',
	'SELECT es_state(''account-1'', ''es_merge'')',
	'SELECT version FROM es_append(''account-1'', ''any'', ''paid'')',
	'SELECT version FROM es_append(''account-1'', ''any'', ''unknown'')',
	'SELECT version FROM es_append(''payroll-1'', ''any'', ''paid'')',
	'INSERT INTO es_events SELECT 99, 99, ''1'', now(), NULL, es_uuid7(), ''a-1'', ''secret'', ''{}''',
	'DELETE FROM es_events', 'TABLE es_failures']) WITH ORDINALITY AS queries (q, qn) ORDER BY rn, qn
END
}

# Nobody but the owner reads, and nobody appends; projections do not run.  An empty log has
# nothing to hide.
sub is_closed
{
	my ($server, $database, $name) = @_;
	my @reads = $server->safe_psql($database, 'SELECT count(*) FROM es_events') eq '0' ? ()
	  : ('SELECT * FROM es_events', 'SELECT * FROM es_read()', q{SELECT es_state('account-1', 'es_merge')});

	foreach my $query (@reads)
	{
		like(answer($server, $database, 'account_reader', $query), qr/^error 55000 the event store is closed/, "$name: closed: $query");
	}
	like(answer($server, $database, 'writer', q{SELECT es_append('account-1', 'any', 'paid')}), qr/^error 55000 the event store is closed/, "$name: a writer");
	foreach my $query (q{SELECT es_append('account-1', 'any', 'paid')}, 'SELECT es_run_projections()')
	{
		like(answer($server, $database, 'postgres', $query), qr/^error 55000 the event store is closed/, "$name: the owner: $query");
	}
	return;
}

sub is_same
{
	my ($server, $database, $from, $name) = @_;

	is(definitions($server, $database), definitions($node, $from), "$name: the same definitions");
	is(abilities($server, $database), abilities($node, $from), "$name: each role can do the same");
	is($server->safe_psql($database, 'SELECT count(*) FROM es_finish_restore()'), '0', "$name: nothing is left to finish");
	is($server->safe_psql($database, q{SELECT count(*) FROM pg_policy WHERE polname ~ '^es_closed'}), '0', "$name: no policy of ours is left");
	is($server->safe_psql($database, q{SELECT count(*) FROM pg_trigger WHERE tgname ~ '^es_' AND tgrelid = 'es_events'::regclass AND tgenabled <> 'A'}),
		'0', "$name: the guards fire always");
	return;
}

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

make_roles($_) foreach ($node, $other);
make_source('source', 'public');
make_source('apart', 'Event Store');
dump_database($node, 'source', 'source.plain');
dump_database($node, 'source', 'source.custom', '-Fc');
dump_database($node, 'source', 'source.folder', '-Fd', '-j', '2');
dump_database($node, 'apart', 'apart.custom', '-Fc');

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
	# processes side by side may have made publications before the definitions were there, or after
	$server->safe_psql($database, 'SELECT count(*) FROM es_finish_restore()') if grep { $_ eq '4' } @options;
	is_same($server, $database, 'source', $database);
}
# pg_dump of PostgreSQL 18 adds tables of ours to publications itself.
{
	my $add = 'ALTER PUBLICATION whole ADD TABLE ONLY public.es_events';

	like(($other->psql('custom', $add))[2], qr/already member/, 'a table is added to a publication once');
	$other->safe_psql('custom', "SET row_security = off; $add");
	is_same($other, 'custom', 'source', 'added by the dump as well');
}
create_database($other, 'one', 'public');
restore($other, 'one', 'source.custom', '--single-transaction');
is_same($other, 'one', 'source', 'in one transaction, which needs nothing else');

create_database($other, 'apart', '"Event Store", public');
restore($other, 'apart', 'apart.custom');
is_same($other, 'apart', 'apart', 'in another schema');

# By section.  What comes before the data is closed already.
create_database($other, 'sections', 'public');
restore($other, 'sections', 'source.custom', '--section=pre-data');
is_closed($other, 'sections', 'before the data');
restore($other, 'sections', 'source.custom', '--section=data');
is_closed($other, 'sections', 'after the data');
restore($other, 'sections', 'source.custom', '--section=post-data');
is_same($other, 'sections', 'source', 'sections');

# Data alone, into a store that was made by hand, in another schema, and is open; without triggers.
foreach my $how ([ 'data', 'public' ], [ 'untriggered', 'public', '--disable-triggers' ])
{
	my ($database, $schema, @options) = @$how;

	create_database($other, $database, "$schema, public");
	restore($other, $database, 'source.custom', '--schema-only');
	$other->safe_psql($database, 'SELECT count(*) FROM es_finish_restore(true)');
	is($other->safe_psql($database, q{SELECT count(*) FROM pg_policy}), '0', "$database: open, with nothing of it");
	restore($other, $database, 'source.custom', '--data-only', @options);
	is_closed($other, $database, $database);
	is($other->safe_psql($database, q{SELECT string_agg(name, ', ' ORDER BY name) FROM es_finish_restore() WHERE result = 'restored' AND kind IN ('constraint', 'policy')}),
		@options ? 'accounts, all of it, known, later, not_second, once, sleeps' : 'known', "$database: finished");
	is_same($other, $database, 'source', $database);
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
$bare->safe_psql('postgres', "CREATE ROLE $_") foreach grep { $_ ne 'account_reader' } @roles;
create_database($bare, 'missing', 'public');
restore($bare, 'missing', 'source.custom', '--no-owner', '--no-privileges');
is($bare->safe_psql('missing', q{SELECT DISTINCT kind, name, message FROM es_finish_restore() WHERE result = 'failed' ORDER BY 2}),
	qq{policy|accounts|role "account_reader" does not exist\npolicy|not_second|role "account_reader" does not exist}, 'a missing role is named');
like(answer($bare, 'missing', 'postgres', q{SELECT es_append('account-1', 'any', 'paid')}), qr/^error 55000/, 'and nothing is open');
$bare->safe_psql('missing', q{CREATE ROLE account_reader});
is($bare->safe_psql('missing', q{SELECT count(*) FROM es_finish_restore() WHERE result = 'restored' AND kind = 'policy'}), '2', 'with the role they are there');
$bare->safe_psql('missing', q{GRANT SELECT ON public.kinds TO PUBLIC; SELECT es_grant(r::regrole, k) FROM (VALUES ('account_reader', 'reader'), ('writer', 'writer'), ('writer', 'reader'), ('"Odd ""role"', 'reader')) v (r, k)});
is_same($bare, 'missing', 'source', 'after the role was made');

# Copies that go on by themselves.
$node->safe_psql('postgres', 'CREATE DATABASE template TEMPLATE source');
$node->safe_psql('postgres', 'ALTER DATABASE template SET search_path = public');
is_same($node, 'template', 'source', 'TEMPLATE');
keeps_guards($node, 'template', 'guards');

# A dump of a copy, and of a store that is closed.
dump_database($other, 'plain', 'again.custom', '-Fc');
create_database($other, 'again', 'public');
restore($other, 'again', 'again.custom', '--single-transaction');
is_same($other, 'again', 'source', 'a copy of a copy');
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
is_same($other, 'unfinished_again', 'source', 'a copy of a closed store');

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
is(abilities($other, 'plain'), abilities($node, 'source'), 'and each role can do what it could');

$_->stop foreach ($node, $other, $bare);
done_testing();
