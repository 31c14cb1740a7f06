# A store with rows in each table and with every kind of addition to its tables; and what must
# be true of each copy of it.
#
# A feature that comes with a table fills it in $rows.  What can be added to a table is a
# line of @additions.
package EventStoreCopies;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use EventStoreDumps;

our @EXPORT = qw(
  copied_roles make_roles make_source grant_again kinds_of_additions
  state_of_copy answer is_closed is_same is_not_more_open is_filled
  copy_forms dump_form restore_form);

my @roles = (qw(account_reader writer nobody), '"Odd ""role"');

my $grants = q{SELECT es_grant(r::regrole, k)
	FROM (VALUES ('account_reader', 'reader'), ('writer', 'writer'), ('writer', 'reader'), ('"Odd ""role"', 'reader')) v (r, k)};

# What the additions need.
my $ground = <<"END" . <<'END';
$grants;
END
CREATE TABLE public.kinds (type text); INSERT INTO public.kinds VALUES ('opened'), ('paid'), ('es_stream_archived'), ('joined'), ('es_subject_erased'); GRANT SELECT ON public.kinds TO PUBLIC;
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
END

# Rows in each table of the store.
my $rows = <<'END';
SELECT es_append('account-1', 'any', 'paid', jsonb_build_object('n', i)) FROM generate_series(1, 40) i;
SELECT es_append('account-1', 'any', 'opened', '{"name": "n"}', tags => ARRAY['tag:' || i, 'all'], body => sha256(i::text::bytea)) FROM generate_series(1, 5) i;
SELECT es_rewrite(id, '{"name": "removed"}') FROM es_events WHERE stream = 'account-2' AND version = 1;
CREATE FUNCTION public.paid_from_1(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data || '{"to": "x"}' $$;
SELECT es_define_event_type('paid', category => 'parcel', schema_version => 2), es_define_upcaster('paid', 1, 'paid_from_1', category => 'parcel');
CREATE TABLE public.at_once (position bigint); CREATE TABLE public.later (position bigint);
SELECT es_create_projection('at_once', mode => 'sync', tables => '{at_once}', query => 'INSERT INTO at_once SELECT position FROM new_events'),
	es_create_projection('later', tables => '{later}', query => 'INSERT INTO later SELECT position FROM new_events'),
	es_create_projection('tagged', query => 'SELECT FROM new_events', event_query => '[{"tags": ["all", "tag:1"]}]');
SELECT es_skip_event('later', 2, 'not wanted');
SELECT es_create_subscription('consumer', partitions => 3, lease => '1 hour');
SET ROLE account_reader;
SELECT es_create_subscription('tagged', query => '[{"types": ["opened"], "tags": ["all"]}]', start_position => (SELECT min(position) FROM es_events WHERE tags IS NOT NULL));
RESET ROLE;
SELECT es_nack('consumer', max(token), min(position), 'no', 'park') FROM es_poll('consumer', 'ann', 10);
CREATE FUNCTION public.on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
	SELECT p->>'id', NULL::timestamptz, 'paid', 'v1', 'payment-' || (p->>'id'), NULL, '{payment}'::text[] FROM (SELECT payload::jsonb AS p) AS message $$;
SELECT es_receive('payments', 'shop', jsonb_build_object('id', i)::text, 'on_payment(text, jsonb)') FROM generate_series(1, 3) i;
SELECT es_snapshot('account-1', 'es_merge');
INSERT INTO es_notified (position) VALUES (1);
INSERT INTO es_published_horizon VALUES (1, es_incarnation());
SELECT es_append('old-1', 'any', 'opened', '{"name": "n"}', tags => '{old}'), es_append('old-1', 'any', 'paid', body => '\x01');
SELECT es_archive_stream('old-1', '{"why": "old"}');
SELECT es_append('old-1', 'any', 'paid');
SELECT es_set_retention('account', max_count => 1000000);
SELECT es_define_event_type('joined', personal => '{name}');
SELECT count(es_append('person-' || i, 'none', 'joined', '{"name": "Ann"}')) FROM generate_series(1, 2) i;
SELECT count(*) FROM es_erase_subject('2', 'asked for');
END

# What is added to tables of the store, by the kind that es_finish_restore() names.
my @additions = (
	# in use, in use without a policy, forced, with policies and not in use
	'row security' => <<'END',
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE es_failures ENABLE ROW LEVEL SECURITY;
ALTER TABLE es_rewrites FORCE ROW LEVEL SECURITY;
END
	policy => <<'END',
CREATE POLICY accounts ON es_events FOR SELECT TO account_reader USING (es_category(stream) = 'account');
CREATE POLICY "all of it" ON es_events TO writer, "Odd ""role" USING (true) WITH CHECK (type <> 'secret');
CREATE POLICY not_second ON es_events AS RESTRICTIVE FOR SELECT TO account_reader USING (stream <> 'account-2');
CREATE POLICY sleeps ON es_inbox FOR DELETE USING (topic = 'it''s');
COMMENT ON POLICY "all of it" ON es_events IS 'a policy';
END
	# also disabled, for replicas, always, deferred, with columns and conditions
	trigger => <<'END',
CREATE TRIGGER audit AFTER INSERT ON es_events FOR EACH ROW WHEN (NEW.type <> 'silent') EXECUTE FUNCTION audit();
CREATE TRIGGER off AFTER INSERT ON es_events FOR EACH STATEMENT EXECUTE FUNCTION refuse();
ALTER TABLE es_events DISABLE TRIGGER off;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON es_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.type = 'never') EXECUTE FUNCTION refuse();
CREATE TRIGGER on_replica AFTER UPDATE OF owner ON es_subscriptions FOR EACH ROW EXECUTE FUNCTION refuse();
ALTER TABLE es_subscriptions ENABLE REPLICA TRIGGER on_replica;
CREATE TRIGGER always BEFORE DELETE ON es_projections FOR EACH ROW WHEN (OLD.name = 'kept') EXECUTE FUNCTION refuse();
ALTER TABLE es_projections ENABLE ALWAYS TRIGGER always;
-- would refuse rows that are loaded after it
CREATE TRIGGER full_inbox AFTER INSERT ON es_inbox FOR EACH ROW EXECUTE FUNCTION refuse();
COMMENT ON TRIGGER audit ON es_events IS 'a trigger';
END
	constraint => <<'END',
ALTER TABLE es_events ADD CONSTRAINT known CHECK (is_known(type)), ADD CONSTRAINT later CHECK (stream <> 'payroll-1') NOT VALID,
	ADD CONSTRAINT once UNIQUE (occurred_at, id) DEFERRABLE;
ALTER TABLE es_rewrites ADD CONSTRAINT of_event FOREIGN KEY (position) REFERENCES es_events;
ALTER TABLE es_skipped_events ADD CONSTRAINT of_projection FOREIGN KEY (projection) REFERENCES es_projections (name) ON DELETE CASCADE;
ALTER TABLE es_inbox ADD CONSTRAINT apart EXCLUDE USING btree (id WITH =) WHERE (topic <> 'x');
ALTER TABLE es_snapshots ADD CONSTRAINT short CHECK (length(stream) < 100);
COMMENT ON CONSTRAINT known ON es_events IS 'a constraint';
END
	index => <<'END',
CREATE INDEX mine ON es_events (recorded_at DESC NULLS LAST) INCLUDE (type) WITH (fillfactor = 70) WHERE type <> 'x ON es_events ';
CREATE INDEX "Odd ""index" ON es_events USING gin (data jsonb_path_ops);
SELECT es_index_attribute('opened', 'name');
SELECT es_index_type('opened');
COMMENT ON INDEX mine IS 'an index';
END
	identity => <<'END',
ALTER TABLE es_subscriptions REPLICA IDENTITY FULL;
ALTER TABLE es_inbox REPLICA IDENTITY NOTHING;
CREATE UNIQUE INDEX replicated ON es_failures (id, first_failed_at);
ALTER TABLE es_failures REPLICA IDENTITY USING INDEX replicated;
END
	column => <<'END',
ALTER TABLE es_events ALTER data SET STORAGE EXTERNAL, ALTER metadata SET COMPRESSION pglz, ALTER type SET STATISTICS 500,
	ALTER stream SET (n_distinct = -0.25), ALTER metadata SET DEFAULT '{"by": "it''s"}';
ALTER TABLE es_skipped_events ALTER reason SET NOT NULL;
END
	setting => <<'END',
ALTER TABLE es_events SET (autovacuum_vacuum_insert_threshold = 7000, toast.autovacuum_enabled = false, fillfactor = 90);
END
	statistics => <<'END',
CREATE STATISTICS together ON stream, type FROM es_events;
END
	rule => <<'END',
CREATE RULE silent AS ON UPDATE TO es_events WHERE OLD.type = 'never' DO ALSO SELECT OLD.position;
ALTER TABLE es_events DISABLE RULE silent;
CREATE RULE always AS ON DELETE TO es_inbox WHERE OLD.topic = 'kept' DO INSTEAD NOTHING;
COMMENT ON RULE silent ON es_events IS 'a rule';
END
	comment => <<'END',
COMMENT ON TABLE es_events IS 'our log: it''s %s';
COMMENT ON COLUMN es_events.data IS E'two\nlines';
END
	publication => <<'END',
CREATE PUBLICATION whole FOR TABLE es_events, es_rewrites;
CREATE PUBLICATION part FOR TABLE es_events (position, stream, type, data) WHERE (position > 1);
END
);

sub kinds_of_additions
{
	return map { $additions[ 2 * $_ ] } 0 .. $#additions / 2;
}

sub copied_roles
{
	return @roles;
}

# Roles are of the cluster.
sub make_roles
{
	my ($server, @some) = @_;

	$server->safe_psql('postgres', "CREATE ROLE $_") foreach @some ? @some : @roles;
	return;
}

# What --no-privileges has left out.
sub grant_again
{
	my ($server, $database) = @_;

	$server->safe_psql($database, "GRANT SELECT ON public.kinds TO PUBLIC; $grants");
	return;
}

# A database with additions of these kinds, of all kinds if none are named.
sub make_source
{
	my ($node, $database, $schema, @kinds) = @_;
	my %additions = @additions;

	create_database($node, $database, qq{"$schema", public});
	$node->safe_psql($database, qq{CREATE SCHEMA IF NOT EXISTS "$schema"; CREATE EXTENSION eventstore SCHEMA "$schema"});
	$node->safe_psql($database, join '', $ground, $rows, map { $additions{$_} } @kinds ? @kinds : kinds_of_additions());
	return;
}

#
# What a store is
#

# The definitions, a line each.  With the names of schemas where the server always writes them.
sub definitions
{
	my ($server, $database) = @_;
	my $row = $server->safe_psql($database, 'TABLE es_user_definitions');

	$row =~ s/^.*?"definitions": \[//s;
	$row =~ s/\}, \{/\n/g;
	$row =~ s/ STATISTICS [^ .]+\./ STATISTICS /g;
	return $row;
}

# The tables of the extension; dumped: those whose rows a dump has.
sub own_tables
{
	my ($server, $database, $dumped) = @_;

	return split /\n/, $server->safe_psql($database, q{
		SELECT c.relname FROM pg_extension x JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid AND d.deptype = 'e'
		  JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind = 'r'
		 WHERE x.extname = 'eventstore' AND c.relname <> 'es_user_definitions'}
		  . ($dumped ? ' AND c.oid = ANY (x.extconfig)' : '') . ' ORDER BY c.relname');
}

# What the catalogs have of the tables of the extension, without a look through the eyes of
# es_definitions().  Names are qualified as the search_path of the database has them.
my $catalog = <<'END';
SELECT line FROM (
	SELECT c.relname, format('table %s %s %s %s %s', c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.reloptions, t.reloptions)
	  FROM tab c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
	UNION ALL
	SELECT c.relname, format('column %s %s %s %s %s %s %s', a.attname, a.attstorage, a.attcompression, coalesce(a.attstattarget::int, -1), a.attnotnull,
		(SELECT array_agg(o ORDER BY o) FROM unnest(a.attoptions) o WHERE o ~ '^n_'), pg_get_expr(d.adbin, d.adrelid))
	  FROM tab c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	UNION ALL
	SELECT c.relname, format('policy %s %s %s %s %s %s', p.polname, p.polpermissive, p.polcmd,
		(SELECT array_agg(CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END ORDER BY r <> 0, r::regrole::text) FROM unnest(p.polroles) r),
		pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
	  FROM tab c JOIN pg_policy p ON p.polrelid = c.oid
	UNION ALL
	SELECT c.relname, format('constraint %s %s %s %s', o.conname, o.convalidated, o.condeferrable, pg_get_constraintdef(o.oid))
	  FROM tab c JOIN pg_constraint o ON o.conrelid = c.oid AND o.contype NOT IN ('n', 't')
	UNION ALL
	SELECT c.relname, format('index %s %s %s', i.indisreplident, i.indisvalid, pg_get_indexdef(i.indexrelid)) FROM tab c JOIN pg_index i ON i.indrelid = c.oid
	UNION ALL
	SELECT c.relname, format('trigger %s %s', g.tgenabled, pg_get_triggerdef(g.oid)) FROM tab c JOIN pg_trigger g ON g.tgrelid = c.oid AND NOT g.tgisinternal
	UNION ALL
	SELECT c.relname, format('rule %s %s', r.ev_enabled, pg_get_ruledef(r.oid)) FROM tab c JOIN pg_rewrite r ON r.ev_class = c.oid
	UNION ALL
	SELECT c.relname, format('statistics %s', pg_get_statisticsobjdef(s.oid)) FROM tab c JOIN pg_statistic_ext s ON s.stxrelid = c.oid
	UNION ALL
	SELECT c.relname, format('publication %s %s %s', p.pubname, p.attnames, p.rowfilter)
	  FROM tab c JOIN pg_publication_tables p ON format('%I.%I', p.schemaname, p.tablename)::regclass = c.oid
	UNION ALL
	SELECT c.relname, format('comment %s %s', pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description)
	  FROM tab c JOIN pg_description d ON (d.classoid, d.objoid) IN (
		SELECT 'pg_class'::regclass, c.oid
		UNION ALL SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid = c.oid
		UNION ALL SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE polrelid = c.oid
		UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = c.oid
		UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE tgrelid = c.oid
		UNION ALL SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite WHERE ev_class = c.oid)) v (relname, line)
 ORDER BY relname COLLATE "C", line COLLATE "C"
END

sub catalog
{
	my ($server, $database) = @_;

	return $server->safe_psql($database, qq{WITH tab AS (
		SELECT c.* FROM pg_extension x JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid AND d.deptype = 'e'
		  JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind = 'r' WHERE x.extname = 'eventstore')
		$catalog});
}

# The rows of each table of which a dump has them, and what follows the numbers of sequences.
# The positions that are drawn for appends that are rolled back do not count.
sub contents
{
	my ($server, $database) = @_;
	my @tables = own_tables($server, $database, 1);
	my $row = q{(to_jsonb(t) - 'next_xid')::text};

	return $server->safe_psql($database, join ";\n", q{SET timezone = 'UTC'},
		(
			map {
				qq{SELECT '$_', count(*), md5(string_agg($row, E'\\n' ORDER BY $row COLLATE "C")) FROM $_ AS t}
				  . ($_ eq 'es_incarnation_entries' ? ' WHERE number = 1' : '')
			} @tables),
		q{SELECT sequencename, last_value FROM pg_sequences WHERE sequencename IN ('es_inbox_id_seq', 'es_failures_id_seq') ORDER BY 1},
		'SELECT p.last_value >= max(e.position) FROM es_position p, es_events e GROUP BY p.last_value',
		q{SELECT tgname, tgenabled, tgtype, tgnewtable FROM pg_trigger WHERE tgrelid = 'es_events'::regclass AND NOT tgisinternal ORDER BY tgname},
		q{SELECT 'tags', count(*), md5(string_agg(t::text, ' ' ORDER BY t::text COLLATE "C")) FROM es_tags AS t},
		q{SELECT stream, data, metadata FROM es_read_category('person')},
		'SELECT * FROM public.audited');
}

# What a role gets of a query.
sub answer
{
	my ($server, $database, $role, $query) = @_;

	return $server->safe_psql($database, "SELECT public.answer(\$r\$$role\$r\$, \$q\$$query\$q\$)");
}

# What each role gets of each query.
sub answers
{
	my ($server, $database, @queries) = @_;

	return $server->safe_psql($database, 'SELECT r, q, public.answer(r, q) FROM unnest(ARRAY['
		  . join(', ', map { "\$r\$$_\$r\$" } @roles) . ']) WITH ORDINALITY AS roles (r, rn), unnest(ARRAY['
		  . join(', ', map { "\$q\$$_\$q\$" } @queries) . ']) WITH ORDINALITY AS queries (q, qn) ORDER BY rn, qn');
}

my @reads = (
	'SELECT stream FROM es_events ORDER BY position',
	'SELECT stream FROM es_read()',
	q{SELECT version FROM es_load('payroll-1')});

# What each role can read and append.
sub abilities
{
	my ($server, $database) = @_;

	return answers($server, $database, @reads,
		q{SELECT es_state('account-1', 'es_merge')},
		q{SELECT position FROM es_poll('tagged')},
		q{SELECT version FROM es_append('account-1', 'any', 'paid')},
		q{SELECT version FROM es_append('account-1', 'any', 'unknown')},
		q{SELECT version FROM es_append('payroll-1', 'any', 'paid')},
		q{INSERT INTO es_events SELECT 9999, 99, '1', now(), NULL, es_uuid7(), 'a-1', 'secret', '{}'},
		'DELETE FROM es_events',
		map { "SELECT count(*) FROM $_" } own_tables($server, $database, 1));
}

# All of it.
sub state_of_copy
{
	my ($server, $database) = @_;

	return {
		definitions => definitions($server, $database),
		catalog     => catalog($server, $database),
		abilities   => abilities($server, $database),
		contents    => contents($server, $database),
		reads       => { map { $_ => 1 } split /\n/, answers($server, $database, @reads) }
	};
}

#
# What must be true
#

# A table that is empty would be copied whatever the copy does.
sub is_filled
{
	my ($server, $database) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $table (own_tables($server, $database))
	{
		cmp_ok($server->safe_psql($database, "SELECT count(*) FROM $table"), '>', 0, "$database: table $table has rows");
	}
	my %dumped = map { $_ => 1 } own_tables($server, $database, 1);
	is(join(' ', grep { !$dumped{$_} } own_tables($server, $database)),
		'es_identity es_notified es_published_horizon es_snapshots es_tags', "$database: a dump has the rows of all tables but these");
	return;
}

# Nobody but the owner reads, and nobody appends; projections do not run.  An empty log has
# nothing to hide.
sub is_closed
{
	my ($server, $database, $name) = @_;
	my @queries = $server->safe_psql($database, 'SELECT count(*) FROM es_events') eq '0' ? ()
	  : ('SELECT * FROM es_events', 'SELECT * FROM es_read()', q{SELECT es_state('account-1', 'es_merge')});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $query (@queries)
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

# The copy, or what there is of it, shows no role what it does not see in the source.
sub is_not_more_open
{
	my ($server, $database, $expected, $name) = @_;
	my @open;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $line (split /\n/, answers($server, $database, @reads))
	{
		push @open, $line unless $line =~ /\|(nothing|error \w{5} .*)$/ || $expected->{reads}{$line};
	}
	is(join("\n", @open), '', "$name: nobody sees more");
	return;
}

sub is_same
{
	my ($server, $database, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(definitions($server, $database), $expected->{definitions}, "$name: the same definitions");
	is(catalog($server, $database), $expected->{catalog}, "$name: the same in the catalogs");
	is(contents($server, $database), $expected->{contents}, "$name: the same rows");
	is(abilities($server, $database), $expected->{abilities}, "$name: each role can do the same");
	is($server->safe_psql($database, 'SELECT kind, table_name FROM es_finish_restore()'), 'erasures|es_erasures', "$name: nothing is left to finish but later erasures");
	is($server->safe_psql($database, q{SELECT count(*) FROM pg_policy WHERE polname ~ '^es_closed'}), '0', "$name: no policy of ours is left");
	is($server->safe_psql($database, q{SELECT count(*) FROM pg_trigger WHERE tgname ~ '^es_' AND tgrelid = 'es_events'::regclass AND tgenabled <> 'A'}),
		'0', "$name: the guards fire always");
	return;
}

#
# Forms of copy
#
# name; dump: options of pg_dump; restore: those of pg_restore or psql, a list for each pass;
# before: what is in the database, the "extension" or the whole "structure"; publications,
# grants: the form leaves them out; log_last: the events are loaded after the definitions, as
# may be side by side; finish: es_finish_restore() is needed, or may be.

my @forms = (
	{ name => 'plain',          dump => ['-Fp'] },
	{ name => 'plain_one',      dump => ['-Fp'], restore => [ ['--single-transaction'] ] },
	{ name => 'plain_inserts',  dump => [ '-Fp', '--inserts' ] },
	{ name => 'plain_columns',  dump => [ '-Fp', '--column-inserts', '--rows-per-insert=7' ] },
	{ name => 'plain_security', dump => [ '-Fp', '--enable-row-security' ], finish => 1 },
	{ name => 'plain_no_owner', dump => [ '-Fp', '--no-owner', '--no-privileges' ], grants => 1 },
	{ name => 'tar',            dump => ['-Ft'] },
	{ name => 'custom',         dump => ['-Fc'] },
	{ name => 'one',            dump => ['-Fc'], restore => [ ['--single-transaction'] ] },
	{ name => 'log_last',       dump => ['-Fc'], log_last => 1 },
	{ name => 'security',       dump => ['-Fc'], restore => [ ['--enable-row-security'] ], finish => 1 },
	{ name => 'no_owner',       dump => ['-Fc'], restore => [ [ '--no-owner', '--no-privileges' ] ], grants => 1 },
	{ name => 'sections',       dump => ['-Fc'], restore => [ ['--section=pre-data'], ['--section=data'], ['--section=post-data'] ] },
	{ name => 'schema',         dump => ['-Fc'], restore => [ [ '-n', 'public' ] ], before => 'extension', publications => 1, grants => 1, finish => 1 },
	{ name => 'data',           dump => ['-Fc'], restore => [ ['--data-only'] ], before => 'structure', finish => 1 },
	{ name => 'untriggered',    dump => ['-Fc'], restore => [ [ '--data-only', '--disable-triggers' ] ], before => 'structure', finish => 1 },
	{ name => 'jobs_one',       dump => [ '-Fd', '-j', '2' ], restore => [ [ '-j', '1' ] ] },
	{ name => 'jobs_four',      dump => [ '-Fd', '-j', '2' ], restore => [ [ '-j', '4' ] ] });

sub copy_forms
{
	return @forms;
}

# The name of the dump of a database in a form; with: a node whose pg_dump makes it.
sub dump_form
{
	my ($node, $database, $form, $with) = @_;
	my $file = join('_', $with ? $with->name : '', $database, @{ $form->{dump} }) =~ s/\W+/_/gr . ($form->{dump}[0] eq '-Fp' ? '.plain' : '.archive');

	dump_database($node, $database, $file, $with // (), @{ $form->{dump} }) unless -e dump_file($file);
	return $file;
}

# The option of pg_restore that takes the events last of all data.
sub log_last
{
	my ($file) = @_;
	my $list = '';
	my @entries;

	IPC::Run::run([ 'pg_restore', '-l', dump_file($file) ], '>', \$list) or die 'pg_restore -l does not work';
	@entries = split /^/, $list;
	my ($log) = grep { / TABLE DATA \S+ es_events / } @entries;
	my ($definitions) = grep { / TABLE DATA \S+ es_user_definitions / } @entries;
	my @rest = grep { $_ ne $log && $_ ne $definitions } @entries;
	my ($last) = grep { $rest[$_] =~ / TABLE DATA / } reverse 0 .. $#rest;

	append_to_file(dump_file("$file.list"), join '', @rest[ 0 .. $last ], $definitions, $log, @rest[ $last + 1 .. $#rest ])
	  unless -e dump_file("$file.list");
	return ('-L', dump_file("$file.list"));
}

# Makes a database of it, which is the same as the source.
sub restore_form
{
	my ($server, $database, $file, $form, $expected) = @_;
	my $before = $form->{before} // '';

	create_database($server, $database, 'public');
	$server->safe_psql($database, 'CREATE EXTENSION eventstore') if $before eq 'extension';
	# pg_dump of PostgreSQL 18 adds tables of ours to them
	$server->safe_psql($database, 'CREATE PUBLICATION whole; CREATE PUBLICATION part')
	  if $form->{publications} && $expected->{definitions} =~ /ALTER PUBLICATION/;
	if ($before eq 'structure')
	{
		restore_database($server, $database, $file, '--schema-only');
		$server->safe_psql($database, 'SELECT count(*) FROM es_finish_restore(true)');
	}
	foreach my $options (@{ $form->{restore} // [ [] ] })
	{
		restore_database($server, $database, $file, @$options, $form->{log_last} ? log_last($file) : ());
		is_not_more_open($server, $database, $expected, "$database @$options");
	}
	# the constraint reads a table that is loaded later, and only a publication would come after it
	$server->safe_psql($database, 'SELECT count(*) FROM es_finish_restore()')
	  if $form->{finish} || $expected->{definitions} =~ /is_known/ && $expected->{definitions} !~ /ALTER PUBLICATION/;
	grant_again($server, $database) if $form->{grants};
	is_same($server, $database, $expected, $database);
	return;
}

1;
