# Where personal attributes are in plaintext: random marks are looked for in every file of the
# server, in all that can be read, and in dumps. Before an erasure they are in no file. After it
# nobody gets them, and the key is in no file of its table. Controls find the marks where they are in
# plaintext: in a store whose types have no personal attributes, in read models, states, failures
# and messages.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreDumps;
use EventStorePersonal;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $count = few_or_many(300, 5000);
my $folder = PostgreSQL::Test::Utils::tempdir();

use_seed();
my $node = new_store('evidence', streaming => 1, conf => "eventstore.key_file = '" . new_key_file('first') . "'\nautovacuum = off\n");

# Every tenth value is long, and is in TOAST.  Nothing of it can be compressed.
sub value_of
{
	my ($mark, $n) = @_;

	return $mark unless $n % 10 == 0;
	return $mark . join '', map { ('a' .. 'y', 'A' .. 'Y', 0 .. 9)[ rand 60 ] } 1 .. 6000;
}

# Appends a mark a subject in every way to append; returns whose each is, by mark.
sub append_marks
{
	my ($database) = @_;
	my (%marks, $sql, $copy);

	foreach my $n (1 .. $count)
	{
		my $mark = new_mark();
		my $data = sprintf '{"name": "%s", "n": %d}', value_of($mark, $n), $n;

		$marks{$mark} = $n;
		if ($n % 6 == 0) { $copy .= "person-$n\tregistered\t$data\n" }
		elsif ($n % 6 == 1) { $sql .= qq{SELECT es_append_batch('person-$n', 'any', '[{"type": "registered", "data": $data}, {"type": "other"}]');\n} }
		elsif ($n % 6 == 2) { $sql .= qq{SELECT es_append_if('[{"stream": "person-$n", "type": "registered", "data": $data}]', '[{"tags": ["of:$n"]}]');\n} }
		elsif ($n % 6 == 3) { $sql .= qq{SELECT version FROM es_execute('person-$n', 'decide', '$data', 'es_merge');\n} }
		elsif ($n % 6 == 4) { $sql .= qq{SELECT position FROM es_decide('[{"tags": ["es_subject:$n"]}]', 'decide_any', '$data', 'es_merge');\n} }
		else { $sql .= qq{SELECT es_append('person-$n', 'any', 'registered', '$data');\n} }
	}
	append_to_file("$folder/$database.sql", qq{
SET eventstore.snapshot_every = 0;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS
	\$\$ SELECT jsonb_build_array(jsonb_build_object('type', 'registered', 'data', command)) \$\$;
CREATE FUNCTION decide_any(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS
	\$\$ SELECT jsonb_build_array(jsonb_build_object('type', 'registered', 'stream', 'person-' || (command->>'n'), 'data', command)) \$\$;
$sql
COPY es_import (stream, type, data) FROM stdin;
$copy\\.
SELECT es_rewrite(id, data || '{"rewritten": true}') FROM es_read() WHERE data->>'n' IN ('1', '2');
SELECT archived FROM es_archive_stream('person-3');
VACUUM ANALYZE;
CHECKPOINT;
});
	$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $node->connstr($database), '-f', "$folder/$database.sql" ],
		"$database: $count marks are appended");
	return \%marks;
}

sub found_in_server
{
	my ($marks) = @_;

	$node->safe_psql('postgres', 'CHECKPOINT');
	return marks_in_files($marks, $node->data_dir);
}

sub log_has
{
	my ($marks) = @_;

	return scalar keys %{ marks_in_text($marks, slurp_file($node->logfile)) };
}

# How many of the marks a query's result has, read by the role.
sub read_count
{
	my ($marks, $sql, $role) = @_;

	$sql = "SET ROLE $role;\n$sql" if $role;
	return scalar keys %{ marks_in_text($marks, $node->safe_psql('postgres', $sql)) };
}

#
# Before an erasure
#

create_database($node, 'plain', 'public');
$node->safe_psql('plain', 'CREATE EXTENSION eventstore');
$node->safe_psql('postgres', q{SELECT es_define_event_type('registered', personal => '{name}')});

my $marks = append_marks('postgres');
my $found = found_in_server($marks);

is(join(', ', sort keys %$found), '', 'no file has a mark: tables, TOAST, indexes, WAL');
is(log_has($marks), 0, 'nor has the log of the server');
is(read_count($marks, 'SELECT * FROM es_read() UNION ALL SELECT * FROM es_load_archived(\'person-3\')'), $count, 'all of them are read');

my $plain = append_marks('plain');
my $places = mark_places($node, 'plain', found_in_server($plain));

cmp_ok($places->{es_events}, '>=', $count - int($count / 10) - 1, 'control: without personal attributes the short ones are in es_events');
is($places->{'es_events.toast'}, int($count / 10), 'control: and the long ones in its TOAST table');
is($places->{'es_archived_events'}, 1, 'control: the one that is archived in that table');
# one that ends a page of WAL is in two parts
cmp_ok($places->{pg_wal}, '>=', 0.95 * $count, 'control: and all in WAL');

#
# Where they are in plaintext, since somebody was given them
#

sql($node, q{CREATE TABLE names (name text)},
	q{SELECT es_create_projection('names', types => '{registered}', query => $$ INSERT INTO names SELECT data->>'name' FROM new_events $$)},
	q{CREATE FUNCTION fails(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'cannot take %', event.data->>'name'; END $$},
	q{SELECT es_create_projection('fails', 'fails', query => NULL, event_query => '[{"tags": ["es_subject:5"]}, {"tags": ["es_subject:7"]}, {"tags": ["es_subject:11"]}]', on_failure => 'park', max_attempts => 1)},
	q{SET client_min_messages = error}, q{SET log_min_messages = error}, q{CALL es_work()},
	q{SELECT es_snapshot('person-' || n, 'es_merge') FROM generate_series(1, 20) n WHERE n <> 3},
	q{SELECT es_discard(id) FROM es_failures WHERE stream = 'person-7'},
	q{CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS
		$$ SELECT (payload::jsonb->>'n', now(), 'registered', '1', 'person-' || (payload::jsonb->>'n'), 'any', NULL)::es_ack_event $$});
my @message_marks = (new_mark(), new_mark());

$marks->{ $message_marks[0] } = 5;
$marks->{ $message_marks[1] } = 11;
sql($node, map { qq{SELECT es_receive('topic', 'group', '{"name": "$message_marks[$_]", "n": @{[ (5, 11)[$_] ]}}', 'on_message')} } 0, 1);
$node->safe_psql('postgres', 'ANALYZE');
$places = mark_places($node, 'postgres', found_in_server($marks));
is($places->{names} + ($places->{'names.toast'} // 0), $count - 1, 'control: a read model has those that were delivered');
cmp_ok($places->{es_snapshots} + ($places->{'es_snapshots.toast'} // 0), '>=', 15, 'control: states have those that they were folded from');
cmp_ok($places->{es_failures}, '>=', 2, 'control: so have failures');
is($places->{es_inbox}, undef, 'the inbox does not have what an event has encrypted');
is(read_count({ map { $_ => 1 } @message_marks }, q{SELECT * FROM es_read()}), 2, 'control: it is read from the events');
cmp_ok($places->{pg_statistic} + ($places->{'pg_statistic.toast'} // 0), '>', 0, 'control: statistics have some of the read model');
ok(!$places->{es_events} && !$places->{'es_events.toast'}, 'the log has none');

#
# After an erasure
#

my @erased = grep { $marks->{$_} <= $count / 2 } keys %$marks;
my %erased = map { $_ => 1 } @erased;
my %kept = map { $_ => 1 } grep { !$erased{$_} } keys %$marks;
my %wrapped = map { split /\|/ } split /\n/,
  $node->safe_psql('postgres', "SELECT encode(key, 'hex'), subject FROM es_subject_keys WHERE subject::int <= $count / 2");

# The wrapped keys that a file of their table has.
sub keys_in_table
{
	my $file = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('es_subject_keys')});

	$node->safe_psql('postgres', 'CHECKPOINT');
	my $content = unpack 'H*', slurp_file($node->data_dir . "/$file");
	return scalar grep { index($content, $_) >= 0 } keys %wrapped;
}

# All that COPY gives of every table, and the functions that read events.
sub all_that_is_read
{
	my ($role) = @_;
	my @tables = split /\n/, $node->safe_psql('postgres',
		q{SELECT c.oid::regclass FROM pg_class c WHERE relkind IN ('r', 'v', 'm') AND relnamespace IN ('public'::regnamespace, 'pg_catalog'::regnamespace)
		     AND c.oid::regclass::text NOT IN ('es_import', 'es_import_log') AND has_table_privilege('} . ($role // 'postgres') . q{', c.oid, 'SELECT')});

	@tables = grep { !/pg_hba_file_rules|pg_ident_file_mappings|pg_largeobject/ } @tables;
	return join ";\n", (map { "COPY (SELECT * FROM $_) TO STDOUT" } @tables),
	  q{SELECT e FROM es_read() e}, q{SELECT e FROM es_read_category('person') e}, q{SELECT e FROM es_query('[{}]') e},
	  q{SELECT l FROM generate_series(1, } . $count . q{) n, es_load('person-' || n) l}, q{SELECT es_load_archived('person-3')},
	  q{SELECT es_load_backward('person-5')}, q{SELECT es_last_event('person-5')}, q{SELECT es_state('person-' || n, 'es_merge') FROM generate_series(1, 20) n WHERE n <> 3},
	  q{SELECT es_upcast_data(position, id, stream, type, data, metadata) FROM es_events}, q{SELECT es_history('person-5', 'es_merge')};
}

is(keys_in_table(), scalar keys %wrapped, 'control: the wrapped keys are in a file of their table');
$node->safe_psql('postgres', "SELECT es_erase_subject(n::text) FROM generate_series(1, $count / 2) n");
is_query($node, 'SELECT count(*) FROM es_subject_keys WHERE key IS NULL', int($count / 2), 'half of the persons are erased');
$node->safe_psql('postgres', 'VACUUM es_subject_keys');
note(keys_in_table() . ' of ' . keys(%wrapped) . ' wrapped keys are left in free space after VACUUM');
$node->safe_psql('postgres', 'VACUUM FULL es_subject_keys');
is(keys_in_table(), 0, 'after VACUUM FULL no wrapped key of theirs is in the file of the table');

sql($node, q{CREATE ROLE regress_es_all}, q{SELECT es_grant('regress_es_all', k) FROM unnest('{reader,writer,operator,retention,personal}'::text[]) k},
	q{GRANT SELECT ON names TO regress_es_all}, q{VACUUM}, q{VACUUM FULL es_snapshots}, q{VACUUM FULL es_failures}, q{VACUUM FULL es_projections});
cmp_ok(read_count(\%erased, 'TABLE names'), '>=', int($count / 2) - 1, 'control: the read model has them still');
sql($node, q{SELECT es_drop_projection(name) FROM es_projections}, q{DROP TABLE names}, q{VACUUM FULL pg_statistic});
foreach my $role (undef, 'regress_es_all')
{
	my $all = all_that_is_read($role);
	my $name = $role // 'a superuser';

	is(read_count(\%erased, $all, $role), 0, "$name reads nothing of the erased ones, by any table or function");
	is(read_count(\%kept, $all, $role), scalar keys %kept, "$name reads all of the others");
}
$found = mark_places($node, 'postgres', found_in_server(\%erased));
delete $found->{pg_wal};
is(join(', ', map { "$_ $found->{$_}" } sort keys %$found), '', 'no file of the database has any, but for WAL from before');
foreach my $format ('-Fp', '-Fc -Z0')
{
	my $file = "dump" . ($format =~ s/\W//gr);

	dump_database($node, 'postgres', $file, split / /, $format);
	is(scalar keys %{ marks_in_text($marks, slurp_file(dump_file($file))) }, 0, "pg_dump $format has none of all marks");
}
dump_database($node, 'plain', 'plain', '-Fp');
is(scalar keys %{ marks_in_text($plain, slurp_file(dump_file('plain'))) }, $count, 'control: one of plaintext has all');
is(log_has($marks), 0, 'the log of the server has none, with its default settings');
$node->stop;
done_testing();
