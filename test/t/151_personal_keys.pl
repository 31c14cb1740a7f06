# Key files that are missing, wrong or open to others, and that change while sessions run; rotation beside
# appends, reads and kills; kills in appends and erasures; a standby with and without the key file.
use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib $FindBin::RealBin;

use EventStoreKills;
use EventStorePersonal;
use EventStoreProjections;
use EventStoreTest;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $folder = PostgreSQL::Test::Utils::tempdir();

use_seed();
my $first = new_key_file('first');
my $second = new_key_file('second', encode_base64(join('', map { chr rand 256 } 1 .. 32)));
my $node = new_store('keys', fsync => 'off', streaming => 1, conf => "eventstore.key_file = '$first'\nrestart_after_crash = on\nhot_standby_feedback = on\n");

# The SQLSTATE of a statement, or what it returns.
sub outcome
{
	my ($sql, $server) = @_;
	my ($status, $out, $err) = ($server // $node)->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	return $err =~ /(?:ERROR|FATAL): +(\w{5}):/ ? $1 : $out;
}

sub append
{
	my ($n, $name) = @_;

	return sprintf q{SELECT version FROM es_append('person-%s', 'any', 'registered', '{"name": "%s", "plan": "gold"}')}, $n, $name // "name $n";
}

sub name_of
{
	my ($n) = @_;

	return qq{SELECT concat_ws(' ', data->>'name', metadata->'\$personal'->>'$n') FROM es_load('person-$n', max_count => 1)};
}

sub state_of_log
{
	return $node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM es_events), (SELECT count(*) FROM es_subject_keys)');
}

#
# Files that cannot be used
#

sql($node, q{SELECT es_define_event_type('registered', personal => '{name}')}, append(1),
	q{SELECT es_append('other-1', 'any', 'x', '{"name": "plain"}')},
	q{CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[]'::jsonb $$});
is(outcome(name_of(1)), 'name 1', 'with the key file it is read');

my $inside = $node->data_dir . '/key';
my $tablespace = "$folder/space";
my $open = new_key_file('open');
my $group = new_key_file('group');
my $secret = new_key_file('unreadable');
my $link = "$folder/link";

append_to_file($inside, slurp_file($first));
chmod 0600, $inside;
symlink $inside, $link;
mkdir $tablespace;
$tablespace = abs_path($tablespace);
$node->safe_psql('postgres', "CREATE TABLESPACE space LOCATION '$tablespace'");
append_to_file("$tablespace/key", slurp_file($first));
chmod 0600, "$tablespace/key";
chmod 0644, $open;
chmod 0640, $group;
chmod 0000, $secret;
$link = abs_path($folder) . '/link';

# [what it is, its path, what an append of a new subject says, and why]
foreach my $case (
	[ 'no file', '', 'is not set' ],
	[ 'a file that is not there', "$first.not", 'cannot be opened: No such file' ],
	[ 'a folder', abs_path($folder), 'is not a file' ],
	[ 'an unreadable file', $secret, 'cannot be opened: Permission denied' ],
	[ 'a file that others may read', $open, 'Others than its owner may read' ],
	[ 'a file that the group may read', $group, 'Others than its owner may read' ],
	[ 'a file below the data directory', $inside, 'lies in the data directory' ],
	[ 'a link to one there', $link, 'lies in the data directory' ],
	[ 'a file in a tablespace', "$tablespace/key", 'lies in a tablespace' ],
	[ 'an empty file', new_key_file('empty', ''), 'It has 0 characters' ],
	[ 'a file that is too short', new_key_file('short', 'ab' x 31), 'It has 62 characters' ],
	[ 'a file that is too long', new_key_file('long', 'ab' x 33), 'It has 66 characters' ],
	[ 'a file with another letter', new_key_file('letter', 'ab' x 31 . 'ag'), 'It has 64 characters' ],
	[ 'base64 of 31 bytes', new_key_file('less', encode_base64('x' x 31)), 'It has 44 characters' ],
	[ 'base64 of nothing', new_key_file('nothing', '=' x 44), 'It has 44 characters' ],
	[ 'a file with NUL behind', new_key_file('nul', 'ab' x 32 . "\0\0"), 'It has 66 characters' ],
	[ 'a large file', new_key_file('large', 'ab' x 10000), 'It has 128 or more characters' ],
	[ 'a wrong file', new_key_file('wrong'), undef ])
{
	my ($name, $path, $why) = @$case;
	my $before = state_of_log();

	set_key_files($node, $path);
	if (defined $why)
	{
		my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n" . append(2));

		like($err, qr/ERROR: +55000: .*DETAIL: +[^\n]*\Q$why\E/s, "$name: an append is refused, which says why");
		unlike($err, qr/abab|[0-9a-f]{32}/, "$name: it shows nothing of the file");
		is(outcome(q{SELECT es_rotate_keys()}), '55000', "$name: so is a rotation");
	}
	is(outcome(append(1)), '55000', "$name: an append to a person that is known is refused");
	is(outcome(q{INSERT INTO es_import (stream, type, data) VALUES ('other-1', 'x', '{}'), ('person-1', 'registered', '{"name": "x"}')}),
		'55000', "$name: so is an import");
	is(outcome(q{SELECT es_execute('person-1', 'decide', '{}', 'es_merge')}), '55000', "$name: and a decision");
	is(outcome(q{SELECT es_personal_hash('1', 'x')}), '55000', "$name: and a hash");
	is(state_of_log(), $before, "$name: nothing is stored");
	is(outcome(name_of(1)), 'no key', "$name: a read says that there is no key");
	is(outcome(q{SELECT data->>'plan' FROM es_load('person-1', max_count => 1) UNION ALL SELECT data->>'name' FROM es_load('other-1')}),
		"gold\nplain", "$name: all else is read");
	is(outcome(q{SELECT version FROM es_append('person-2', 'any', 'registered', '{"plan": "tin"}')}) =~ /^\d+$/, 1, "$name: what is not personal is stored");
}
$node->safe_psql('postgres', 'DROP TABLESPACE space');
is(outcome(q{SELECT count(*) > 0 FROM es_erase_subject('9')}), 't', 'an erasure needs no key file');
foreach my $setting ('relative', "$first, relative", join(',', map { "/$_" } 1 .. 9))
{
	my ($status, $out, $err) = $node->psql('postgres', "LOAD 'eventstore'; ALTER SYSTEM SET eventstore.key_file = '$setting'");

	like($err, qr/invalid value for parameter/, "refused as the setting: $setting");
}
$node->safe_psql('postgres', 'CREATE ROLE regress_es_all');
# Before its library is loaded in a session, a setting is one that the server does not know.
is(outcome(q{SELECT es_expected_version_in('any'); SET ROLE regress_es_all; SHOW eventstore.key_file}), '42501', 'only a superuser sees the path');

#
# Files that change while a session runs
#

set_key_files($node, $first);
my $session = $node->background_psql('postgres', on_error_stop => 0);

sub in_session
{
	my ($sql) = @_;
	my ($out) = $session->query($sql);

	$out =~ s/^\s+|\s+$//g;
	return $out;
}

in_session(append(3));
is(in_session(name_of(3)), 'name 3', 'a session has read with the key');
rename $first, "$first.away" or die;
is(in_session(append(3)), '', 'the file is gone: the session cannot append');
append_to_file($first, slurp_file($second));
chmod 0600, $first;
is(in_session(append(3)), '', 'it has another key: the session cannot append to a person of the old one');
is(in_session(name_of(1)), 'no key', 'nor read');
rename "$first.away", $first or die;
is(in_session(append(3)), '2', 'the old file is back: it appends');
is(in_session(name_of(1)), 'name 1', 'and reads');
set_key_files($node, $second, $first);
is(in_session(name_of(1)), 'name 1', 'both open');
is(in_session(append(4)), '1', 'the first wraps');
is_query($node, q{SELECT count(DISTINCT key_encryption_key) FROM es_subject_keys WHERE subject IN ('1', '4')}, '2', 'they are known by their fingerprints');
$session->quit;
set_key_files($node, $first, $second);

#
# Rotation, in batches, beside appends and reads; killed in the middle
#

my $keys = few_or_many(400, 5000);

$node->safe_psql('postgres', qq{SELECT count(es_append('person-' || n, 'any', 'registered', jsonb_build_object('name', 'name ' || n))) FROM generate_series(100, 99 + $keys) n});
my $all = $node->safe_psql('postgres', 'SELECT count(*) FROM es_subject_keys WHERE key IS NOT NULL');

set_key_files($node, $second, $first);
my $old = 'SELECT count(*) FROM es_subject_keys WHERE key IS NOT NULL AND key_encryption_key <> (SELECT key_encryption_key FROM es_subject_keys WHERE subject = \'4\')';
my $appender = start_repeating($node, 'client', "SELECT es_append('person-' || 100 + (random() * $keys)::int % $keys, 'any', 'registered', '{\"name\": \"again\"}');\n"
	  . "SELECT es_append('person-new-' || gen_random_uuid(), 'any', 'registered', '{\"name\": \"new\"}');\n");
my $reader = start_repeating($node, 'reader', q{DO $$ BEGIN
	IF EXISTS (SELECT FROM (SELECT * FROM es_read() ORDER BY random() LIMIT 200) e WHERE e.metadata ? '$personal') THEN RAISE 'not opened'; END IF; END $$;} . "\n");

is($node->safe_psql('postgres', 'SELECT es_rotate_keys(50)'), '50', 'a batch is rotated');
is(outcome('SELECT es_rotate_keys(0)'), '22023', 'a batch of none is refused');
my $rotator = start_repeating($node, 'rotator', "SELECT es_rotate_keys(20), pg_sleep(0.01);\n");
wait_until('some are rotated', sub { $node->safe_psql('postgres', $old) < $all - 60 }, 0.01);
ok(crash($node, 'rotator'), 'kill -9 in a rotation');
end_psql($rotator, $appender);
my $error = slurp_file($node->logfile) =~ /(not opened)/ ? $1 : '';
end_psql($reader);
is($error, '', 'readers open all events meanwhile');
my $left = $node->safe_psql('postgres', $old);
note("$left of $all keys are left after the kill");
is_query($node, q{SELECT count(*) FROM es_read() WHERE metadata ? '$personal'}, '0', 'after the kill every event is opened');
1 while $node->safe_psql('postgres', 'SELECT es_rotate_keys(300)') > 0;
is_query($node, $old, '0', 'the rotation comes to its end');
set_key_files($node, $second);
is_query($node, q{SELECT count(*) FROM es_read() WHERE metadata ? '$personal'}, '0', 'the new key file alone opens all');
set_key_files($node, $first);
is_query($node, q{SELECT count(*), count(metadata->'$personal') FROM es_read() WHERE type = 'registered' AND data ? 'name'} =~ s/count\(metadata.*?\)/count(*) FILTER (WHERE metadata->>'\$personal' LIKE '%no key%')/r,
	join('|', ($node->safe_psql('postgres', q{SELECT count(*) FROM es_read() WHERE type = 'registered' AND data ? 'name'})) x 2), 'the old one opens none');
set_key_files($node, $second, $first);

#
# An erasure that is open, and a rotation; and the other way round
#

$node->safe_psql('postgres', append(5) . ';' . append(6));
set_key_files($node, $first, $second);
foreach my $case (
	[ 5, q{SELECT count(*) FROM es_erase_subject('5')}, 'SELECT es_rotate_keys(1000000)' ],
	[ 6, 'SELECT es_rotate_keys(1000000)', q{SELECT count(*) FROM es_erase_subject('6')} ])
{
	my ($n, $open, $waits) = @$case;

	set_key_files($node, $n == 5 ? ($first, $second) : ($second, $first));
	$session = $node->background_psql('postgres', on_error_stop => 0);
	in_session("BEGIN; $open");
	append_to_file("$folder/waits$n.sql", $waits);
	local $ENV{PGAPPNAME} = 'waits';
	my $waiting = start_psql($node, "$folder/waits$n.sql", "$folder/waits$n");

	wait_until('it waits', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waits' AND wait_event_type = 'Lock'}) });
	in_session('COMMIT');
	$session->quit;
	ok(finish_psql($waiting), "$waits waits for $open, and goes on");
	is_query($node, "SELECT key IS NULL AND key_encryption_key IS NULL FROM es_subject_keys WHERE subject = '$n'", 't', 'the key is erased');
	is(outcome(name_of($n)), 'erased', 'and so is what it opened');
	is_query($node, q{SELECT count(*) FROM es_read() WHERE metadata->>'$personal' ~ 'no key|damaged'}, '0', 'all else is opened');
}
1 while $node->safe_psql('postgres', 'SELECT es_rotate_keys()') > 0;

#
# Kills in appends and erasures
#

my $rounds = few_or_many(4, 16);
my $next = 0;

$node->safe_psql('postgres', 'CREATE TABLE answered (n int)');
foreach my $round (1 .. $rounds)
{
	my $from = 10_000 * $round;
	my @clients = map {
		my $client = $_;
		start_repeating($node, 'client', sprintf(q{SELECT count(es_append('person-' || %d + (random() * 40)::int, 'any', 'registered', jsonb_build_object('name', 'n' || i))) FROM generate_series(1, 3) i;} . "\n"
			  . q{SELECT version FROM es_append('person-' || %1$d + (random() * 40)::int, 'any', 'registered', '{"name": "n"}');} . "\n", $from))
	} 1 .. 3;
	my $eraser = start_repeating($node, 'eraser', sprintf(q{SELECT %d + (random() * 40)::int AS n \gset} . "\n"
			. q{SELECT es_snapshot('person-' || :n, 'es_merge') \g /dev/null} . "\n"
			. q{SELECT count(*) FROM es_erase_subject(:'n') \g /dev/null} . "\n" . q{INSERT INTO answered VALUES (:n);} . "\nSELECT pg_sleep(0.01) \\g /dev/null\n", $from));
	my $victim = $round % 2 ? 'eraser' : 'client';

	wait_until('erasures there', sub { $node->safe_psql('postgres', "SELECT count(*) FROM es_erasures WHERE subject ~ '^\\d+\$' AND subject::int BETWEEN $from AND $from + 40") > 4 }, 0.02);
	ok(crash($node, $victim), "round $round: kill -9 of $victim");
	end_psql(@clients, $eraser);
	is_query($node, q{SELECT DISTINCT s.word FROM es_read() e, jsonb_each_text(e.metadata->'$personal') s (subject, word)}, 'erased', "round $round: events are opened or erased");
	is_query($node, q{SELECT count(*) FROM es_read() e JOIN es_erasures x ON e.tags @> ARRAY['es_subject:' || x.subject]
		WHERE e.type = 'registered' AND e.data->>'name' IS NOT NULL}, '0', "round $round: none of an erased person is opened");
	is_query($node, q{SELECT count(*) FROM es_subject_keys k FULL JOIN es_erasures x USING (subject)
		FULL JOIN (SELECT data->>'subject' AS subject, count(*) AS n FROM es_query('[{"types": ["es_subject_erased"]}]') GROUP BY 1) e USING (subject)
		WHERE (k.erased_at IS NOT NULL) IS DISTINCT FROM (x.subject IS NOT NULL) OR (x.subject IS NULL) IS DISTINCT FROM (e.n IS NULL) OR e.n > 1}, '0',
		"round $round: an erasure is whole: key, record and one event");
	is_query($node, q{SELECT count(*) FROM answered WHERE n::text NOT IN (SELECT subject FROM es_erasures)}, '0', "round $round: one that has returned stays");
	is_query($node, q{SELECT count(*) FROM es_snapshots s JOIN es_erasures x ON s.stream = 'person-' || x.subject WHERE s.state->>'name' IS NOT NULL}, '0',
		"round $round: no state has what was erased");
}
holds_versions_dense($node, 'after the kills');
is(slurp_file($node->logfile) =~ /(TRAP|PANIC|segmentation)/i ? $1 : '', '', 'no failure in the log');

#
# A standby
#

my $standby = new_standby($node);

sub there
{
	my ($sql) = @_;

	$node->wait_for_catchup($standby);
	return outcome($sql, $standby);
}

is(there(name_of(1)), 'name 1', 'a standby with the key file reads');
$session = $standby->background_psql('postgres', on_error_stop => 0);
is(in_session(name_of(1)), 'name 1', 'so does a session of it');
is(there(q{SELECT es_personal_hash('1', 'x')}), '25006', 'it makes no hashes');
is(there(q{SELECT es_erase_subject('1')}), '25006', 'nor erasures');
is(there(q{SELECT es_rotate_keys()}), '25006', 'nor rotates');
set_key_files($standby, new_key_file('other'));
is(there(name_of(1)), 'no key', 'with another key file it does not');
is(there(q{SELECT data->>'name' FROM es_load('other-1')}), 'plain', 'but all else');
is(in_session(name_of(1)), 'no key', 'nor does a session that has read before');
set_key_files($standby, '');
is(there(name_of(1)), 'no key', 'nor without one');
set_key_files($standby, $second);
is(in_session(name_of(1)), 'name 1', 'the file is there again');
$node->safe_psql('postgres', q{SELECT count(*) FROM es_erase_subject('1')});
$node->wait_for_catchup($standby);
is(in_session(name_of(1)), 'erased', 'what is erased on the primary is erased there, also for the session that has read it');
is(there(q{SELECT state->>'name' FROM es_state('person-1', 'es_merge')}), '', 'and in a state');
$session->quit;
$standby->stop;
$node->stop;
done_testing();
