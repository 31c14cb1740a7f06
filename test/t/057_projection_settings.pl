# The same log gives the same to every session: each setting that a session or a role may
# have is turned to another value, in sessions that append, read, fold, run and rebuild, in
# the database that a worker serves, and where a projection is created.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('settings', conf => q{
max_worker_processes = 12
eventstore.poll_interval = '50ms'
});

# These are about the session itself, and are not turned: it would end, wait, refuse, or
# not be understood.
my %left_alone = map { $_ => 1 } qw(
  client_encoding client_min_messages default_tablespace default_transaction_deferrable
  default_transaction_isolation default_transaction_read_only dynamic_library_path
  exit_on_error idle_in_transaction_session_timeout idle_session_timeout
  lock_timeout max_stack_depth restrict_nonsystem_relation_kind role session_authorization
  session_preload_libraries local_preload_libraries statement_timeout
  temp_tablespaces transaction_deferrable transaction_isolation transaction_read_only
  transaction_timeout debug_discard_caches eventstore.strict_types default_table_access_method
  tcp_user_timeout temp_buffers debug_parallel_query force_parallel_mode zero_damaged_pages
  ignore_system_indexes jit_provider log_min_messages log_statement log_duration log_parser_stats
  log_planner_stats log_executor_stats log_statement_stats debug_print_parse debug_print_plan
  debug_print_rewritten allow_system_table_mods allow_in_place_tablespaces
  log_min_duration_statement log_min_duration_sample log_statement_sample_rate
  log_transaction_sample_rate log_parameter_max_length log_parameter_max_length_on_error
  log_error_verbosity log_min_error_statement backtrace_functions wal_consistency_checking
  search_path eventstore.snapshot_every
);

# Other values of settings that are words of their own.
my %words = (
	'TimeZone'                    => 'Pacific/Kiritimati',
	'timezone_abbreviations'      => 'India',
	'DateStyle'                   => 'SQL, DMY',
	'application_name'            => 'other',
	'default_text_search_config'  => 'pg_catalog.simple',
	'lc_messages'                 => 'C.UTF-8',
	'lc_monetary'                 => 'C.UTF-8',
	'lc_numeric'                  => 'C.UTF-8',
	'lc_time'                     => 'C.UTF-8',
	'plpgsql.extra_errors'        => 'shadowed_variables',
	'plpgsql.extra_warnings'      => 'shadowed_variables',
	'default_toast_compression'   => 'lz4',
	'createrole_self_grant'       => 'set',
	'debug_io_direct'             => '',
);

# Those that change what the probe below gives, when it is called directly.
my @meaning = qw(
  array_nulls backslash_quote bytea_output DateStyle default_text_search_config
  extra_float_digits gin_fuzzy_search_limit IntervalStyle lc_messages lc_monetary lc_numeric lc_time
  plpgsql.check_asserts plpgsql.variable_conflict quote_all_identifiers
  session_replication_role standard_conforming_strings TimeZone
  timezone_abbreviations transform_null_equals xmlbinary xmloption);

# What each setting's other value is, from the server's own list.
sub other_values
{
	my %other;

	foreach my $row (split /\n/, sql($node, q{
		LOAD 'plpgsql';
		SELECT name, vartype, setting, min_val, max_val,
		       coalesce((SELECT v FROM unnest(enumvals) v WHERE v <> setting LIMIT 1), '')
		  FROM pg_settings WHERE context IN ('user', 'superuser')}))
	{
		my ($name, $type, $value, $min, $max, $enum) = split /\|/, $row;

		next if $left_alone{$name};
		if    (exists $words{$name}) { $other{$name} = $words{$name}; }
		elsif ($type eq 'bool')      { $other{$name} = $value eq 'on' ? 'off' : 'on'; }
		elsif ($type eq 'enum')      { $other{$name} = $enum; }
		elsif ($type eq 'integer')   { $other{$name} = $value + 1 <= $max ? $value + 1 : $value - 1; }
		elsif ($type eq 'real')      { $other{$name} = $value / 2 >= $min ? $value / 2 : $min; }
		else                         { $other{$name} = $value; }
	}
	$other{extra_float_digits} = -3;
	$other{gin_fuzzy_search_limit} = 7;
	$other{IntervalStyle} = 'sql_standard';
	$other{session_replication_role} = 'replica';
	$other{'plpgsql.variable_conflict'} = 'use_column';
	$other{backslash_quote} = 'off';
	return %other;
}

# The statements that turn them; what this server cannot is left.
sub turn
{
	my (%other) = @_;
	my @statements;

	foreach my $name (sort keys %other)
	{
		my ($key, $value) = ($name, $other{$name});
		$value =~ s/'/''/g;
		$key = join '.', map { "\"$_\"" } split /\./, $key;
		push @statements, "SET $key = '$value'";
	}
	return @statements;
}

# A probe prints, reads and computes what depends on settings.  Each suffix has one of its
# own, since a session plans a function's statements once, by the settings of then.
sub create_probe
{
	my ($suffix) = @_;

	sql($node, qq{
		CREATE FUNCTION conflict_$suffix(n int) RETURNS text LANGUAGE plpgsql AS \$\$
		DECLARE v int := 1; r text;
		BEGIN
			SELECT v INTO r FROM (VALUES (2)) AS t (v);
			RETURN r;
		EXCEPTION WHEN others THEN RETURN SQLSTATE;
		END \$\$}, qq{
		CREATE FUNCTION probe_$suffix(at timestamptz, x float8) RETURNS text LANGUAGE plpgsql AS \$\$
		BEGIN
			RETURN concat_ws(' / ', at, at::date, extract(dow FROM at), x, x / 3, at > '2026-04-01 00:00',
				tried(\$t\$ '2026-01-02 03:04 IST'::text::timestamptz at time zone 'UTC' \$t\$),
				'01/02/2026'::date - '2026-01-01',
				'-1 days -2:03'::interval, '\\x6173'::bytea, 12.5::text::money,
				to_char(-1234567.5, 'L9G999G999D99'), to_char(at, 'TMMonth TMDay'),
				tried(\$t\$ xmlforest('\\x6173'::bytea AS b) \$t\$), tried(\$t\$ '<a/><b/>'::text::xml \$t\$),
				'{NULL}'::text[] IS DISTINCT FROM ARRAY[NULL]::text[],
				to_tsvector('the running cats'), length('a\\\\b'), tried(\$t\$ E'it\\'s' \$t\$),
				quote_ident('a'), tried(\$t\$ (SELECT a = NULL FROM (VALUES (NULL::int)) AS t (a)) \$t\$),
				conflict_$suffix(1), asserted(),
				current_setting('lc_messages'), current_setting('lc_monetary'), current_setting('lc_numeric'),
				current_setting('lc_time'), current_setting('gin_fuzzy_search_limit'),
				current_setting('session_replication_role'));
		END \$\$});
	return;
}

sql($node, q{
	CREATE FUNCTION tried(expression text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE r text;
	BEGIN
		EXECUTE 'SELECT (' || expression || ')::text' INTO r;
		RETURN r;
	EXCEPTION WHEN others THEN RETURN SQLSTATE;
	END $$}, q{
	CREATE FUNCTION asserted() RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		ASSERT false;
		RETURN 'none';
	EXCEPTION WHEN assert_failure THEN RETURN 'asserted';
	END $$});
create_probe($_) foreach qw(direct up first second third);

my $at = "'2026-03-31T20:30:00Z'";
my $probe = "SELECT probe_direct($at, 0.1)";
my %other = other_values();
my @turned = turn(%other);

cmp_ok(scalar(@turned), '>', 100, 'the settings of the server are turned');

# The probe sees those settings that the document says change the meaning, and no other.
my $plain = sql($node, $probe);
my @seen = grep { sql($node, turn($_ => $other{$_}), $probe) ne $plain } sort { lc $a cmp lc $b } keys %other;
is("@seen", join(' ', sort { lc $a cmp lc $b } @meaning), 'settings that change what the probe gives');

# What handles events calls the probe, and so does an upcaster, a reducer and a decider.
sub create_projections
{
	my ($suffix, @before) = @_;

	foreach my $way (qw(sync work worker))
	{
		sql($node, @before, "CREATE TABLE handled_${way}_$suffix (n bigint PRIMARY KEY, fired int, seen text, upcast text)",
			"CREATE TRIGGER fire BEFORE INSERT ON handled_${way}_$suffix FOR EACH ROW EXECUTE FUNCTION fire_here()",
			"CREATE FUNCTION handle_${way}_$suffix(event es_recorded_event) RETURNS void LANGUAGE sql AS
			 'INSERT INTO handled_${way}_$suffix VALUES (event.position, 0, probe_$suffix(event.occurred_at, (event.data->>''x'')::float8), event.data->>''upcast'')'",
			"SELECT es_create_projection('handled_${way}_$suffix', handler => 'handle_${way}_$suffix', category => '$way',
			   tables => '{handled_${way}_$suffix}', mode => '" . ($way eq 'sync' ? 'sync' : 'async') . "')",
			"CREATE TABLE queried_${way}_$suffix (LIKE handled_${way}_$suffix INCLUDING ALL)",
			"CREATE TRIGGER fire BEFORE INSERT ON queried_${way}_$suffix FOR EACH ROW EXECUTE FUNCTION fire_here()",
			"SELECT es_create_projection('queried_${way}_$suffix', query => 'INSERT INTO queried_${way}_$suffix
			   SELECT position, 0, probe_$suffix(occurred_at, (data->>''x'')::float8), data->>''upcast'' FROM new_events', category => '$way',
			   tables => '{queried_${way}_$suffix}', mode => '" . ($way eq 'sync' ? 'sync' : 'async') . "')");
	}
	return;
}

sub append
{
	my ($way, $number) = @_;

	return "SELECT version FROM es_append('$way-$number', 'any', 'a', '{\"x\": 0.1}', occurred_at => $at)";
}

# All that is in the read models of a suffix, without the positions.  A rebuild does not
# fire the triggers of the tables for rows that it finds there.
our $columns = 'fired, seen, upcast';

sub read_models
{
	my ($suffix, @ways) = @_;

	return sql($node, "SELECT DISTINCT $columns FROM ("
		  . join(' UNION ALL ', map { ("TABLE handled_${_}_$suffix", "TABLE queried_${_}_$suffix") } @ways)
		  . ') AS models (n, fired, seen, upcast)');
}

sub without_fired
{
	local $columns = 'seen, upcast';

	return read_models(@_);
}

sub counts
{
	my ($suffix, @ways) = @_;

	return join ' ', map { sql($node, "SELECT count(*) FROM handled_${_}_$suffix"), sql($node, "SELECT count(*) FROM queried_${_}_$suffix") } @ways;
}

sql($node, q{CREATE FUNCTION fire_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.fired := 1; RETURN NEW; END $$});
create_projections('first');
sql($node, append($_, 1)) foreach qw(sync work worker);
sql($node, 'SELECT es_define_event_type(\'a\', schema_version => 2)',
	q{CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql AS
	  $$ SELECT data || jsonb_build_object('upcast', probe_up('2026-03-31T20:30:00Z', 0.1)) $$},
	"SELECT es_define_upcaster('a', 1, 'up')",
	'TRUNCATE handled_sync_first, queried_sync_first');
sub append_old
{
	my ($way, $number) = @_;

	return "SELECT version FROM es_append('$way-$number', 'any', 'a', '{\"x\": 0.1}', metadata => '{\"schema_version\": 1}', occurred_at => $at)";
}

my $expected = "1|$plain|$plain";

sql($node, append_old('sync', 1));
sql($node, 'CALL es_work()');
sql($node, @turned, append_old('sync', 1));
sql($node, @turned, append_old($_, 1), 'CALL es_work()') foreach qw(work);
is(read_models('first', qw(sync work)), $expected, 'sync projections and es_work give the same in every session');
is(counts('first', qw(sync work)), '2 2 2 2', 'all events were handled');
sql($node, @turned, "SELECT es_rebuild_projection('$_')") foreach qw(handled_sync_first queried_sync_first);
is(without_fired('first', qw(sync)), "$plain|$plain", 'a rebuild gives the same');
sql($node, @turned, append_old('work', 1), "SELECT es_run_projections()");
is(read_models('first', qw(work)), $expected, 'es_run_projections gives the same');

# Created after the events.
create_projections('second');
sql($node, @turned, 'CALL es_work()');
is(read_models('second', qw(sync work)), $expected, 'projections that were created later give the same');
# An upcaster that warns does not move what a query reads.
is(counts('second', qw(sync work)), '3 3 3 3', 'they have all events');

# Created in another session: they keep that one's settings, wherever they run.
my $turned_probe = sql($node, @turned, $probe);
create_projections('third', @turned);
sql($node, append_old($_, 1), 'CALL es_work()') foreach qw(sync work);
$turned_probe =~ s{ / 7 / replica$}{ / 0 / origin};
is(read_models('third', qw(sync work)), "1|$turned_probe|$plain", 'a projection keeps the settings of the session that created it');
isnt($turned_probe, $plain, 'which are others');
sql($node, "SELECT es_rebuild_projection('$_')") foreach qw(handled_sync_third queried_work_third);
is(without_fired('third', qw(sync work)), "$turned_probe|$plain", 'also in a rebuild');

# A worker, in a database with other settings.
foreach my $name (sort keys %other)
{
	my $key = join '.', map { "\"$_\"" } split /\./, $name;
	(my $value = $other{$name}) =~ s/'/''/g;
	sql($node, "ALTER DATABASE postgres SET $key = '$value'");
}
is(sql($node, $probe), sql($node, @turned, $probe), 'the database has the other settings');
my $pid = sql($node, 'SELECT es_start_worker()');
sql($node, append_old('worker', 1));
$node->poll_query_until('postgres', q{SELECT bool_and(lag_events = 0 AND state = 'running') FROM es_projection_status})
  or die 'the worker did not run the projections';
is(read_models('first', 'worker'), $expected, 'a worker gives the same');
is(read_models('second', 'worker'), $expected, 'also of one that was created later');
is(read_models('third', 'worker'), "1|$turned_probe|$plain", 'and of one that was created elsewhere');
sql($node, "SELECT pg_terminate_backend($pid)");
sql($node, 'ALTER DATABASE postgres RESET ALL');

# What readers get, states, snapshots, decisions, digests and checks.
sql($node, q{CREATE FUNCTION reduce(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS
	$$ SELECT jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1, 'seen', probe_up(event.occurred_at, 0.1),
	     'date', event.occurred_at::date, 'data', event.data) $$},
	q{CREATE FUNCTION reduce_plpgsql(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS
	$$ BEGIN RETURN jsonb_build_object('seen', probe_up(event.occurred_at, 0.1), 'at', event.occurred_at); END $$},
	q{CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS
	$$ SELECT jsonb_build_array(jsonb_build_object('type', 'decided', 'data', jsonb_build_object('state', state, 'seen', probe_up('2026-03-31T20:30:00Z', 0.1)))) $$},
	q{CREATE FUNCTION receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS
	$$ SELECT jsonb_populate_record(NULL::es_ack_event, jsonb_build_object('entity_id',
	     probe_up('2026-03-31T20:30:00Z', 0.1), 'event_time', payload::timestamptz)) $$},
	q{SELECT es_define_event_type('dated', attributes => '{"day": "date", "at": "timestamptz"}')});

my %answers = (
	'es_load'     => "SELECT md5(string_agg(data::text, '|' ORDER BY version)) FROM es_load('sync-1')",
	'es_state'    => "SELECT state, version FROM es_state('sync-1', 'reduce')",
	'es_state in PL/pgSQL' => "SELECT state, version FROM es_state('sync-1', 'reduce_plpgsql')",
	'es_history'  => "SELECT md5(string_agg(state::text, '|')) FROM es_history('sync-1', 'reduce')",
	'es_execute'  => "SELECT state->'data'->'seen', state->'data'->'state'->'seen' FROM es_execute('new-' || gen_random_uuid(), 'decide', '{}', 'reduce')",
	'es_receive'  => "SELECT es_receive('t', gen_random_uuid()::text, '2026-01-02 03:04', 'receive');
	                  SELECT extract(epoch FROM event_time), entity_id FROM es_inbox ORDER BY id DESC LIMIT 1",
	'es_digest'   => q{SELECT es_digest('t', d, '{a,b,c,d}'), es_digest_string(d, '{a,b,c,d}')
	                     FROM (VALUES ('{"a": 1.500e2, "b": "2026-01-01T00:00:00Z", "c": "ä", "d": true}'::jsonb)) AS v (d)},
	'es_checksum' => q{SELECT es_checksum('{"at": "2026-01-01", "x": 1.50}')},
	'es_attribute' => q{SELECT es_attribute('{"x": 1.50, "at": "2026-01-01"}', 'x')},
);
foreach my $what (sort keys %answers)
{
	is(sql($node, 'SET eventstore.snapshot_every = 0', @turned, 'SET eventstore.snapshot_every = 0', $answers{$what}),
		sql($node, 'SET eventstore.snapshot_every = 0', $answers{$what}), "$what is the same in every session");
}

# Snapshots of one session serve the others, and give what a whole fold gives.
my $whole = sql($node, $answers{es_state});
sql($node, @turned, "SELECT es_snapshot('sync-1', 'reduce')");
is(sql($node, @turned, $answers{es_state}), $whole, 'a snapshot is the same in the session that took it');
is(sql($node, $answers{es_state}), $whole, 'and in others');
is(sql($node, append_old('sync', 1), q{SELECT count(*) FROM es_state('sync-1', 'reduce')}), "5\n1", 'the stream goes on');
is(sql($node, "SELECT version FROM es_snapshots WHERE reducer LIKE '%.reduce(%'"), '4', 'there is one snapshot');

# A reducer finds its functions along the caller's search_path: another path, another snapshot.
sql($node, 'CREATE SCHEMA one', 'CREATE SCHEMA two',
	map { ("CREATE FUNCTION $_.word() RETURNS text LANGUAGE sql AS \$\$ SELECT '$_' \$\$") } qw(one two));
sql($node, q{SET check_function_bodies = off; CREATE FUNCTION reduce_by_path(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS
	$$ BEGIN RETURN jsonb_build_object('words', coalesce(state->>'words', '') || word()); END $$});
sql($node, 'SET search_path = one, public', "SELECT es_snapshot('sync-1', 'reduce_by_path')");
is(sql($node, 'SET search_path = two, public', "SELECT state->>'words' FROM es_state('sync-1', 'reduce_by_path')"),
	'two' x 5, 'a snapshot is not taken for one of another search_path');

# Whether an event is valid does not depend on who appends it.
foreach my $day ('2026-01-13', '01/13/2026', '13/01/2026')
{
	my $sql = "SELECT version FROM es_append('dated-1', 'any', 'dated', '{\"day\": \"$day\"}')";
	my ($base, undef) = $node->psql('postgres', "BEGIN; $sql; ROLLBACK");
	my ($turned, undef) = $node->psql('postgres', join(';', @turned, "BEGIN; $sql; ROLLBACK"));
	is($turned, $base, "the date $day is as valid in every session");
}

$node->stop;
done_testing();
