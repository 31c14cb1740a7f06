# What es_health says of key files: none, one that cannot be used, the wrong one, a rotation that has not
# ended; on a standby, too.  The view is empty again as soon as the file is.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStorePersonal;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

use_seed();
my $first = new_key_file('first');
my $second = new_key_file('second');
my $open = new_key_file('open');
my $node = new_store('health_keys', fsync => 'off', streaming => 1, conf => "eventstore.key_file = ''\n");

chmod 0644, $open;

# What is wrong, without delay or with that of the setting: "urgency problem object", and the message.
sub health
{
	my (%how) = @_;
	my $rows = ($how{server} // $node)->safe_psql('postgres',
		'SET eventstore.health_delay = ' . ($how{delay} // 0) . ';'
		  . q{SELECT concat_ws(' ', urgency, problem, object) || ': ' || message FROM es_health WHERE problem <> 'worker_missing'});

	unlike($rows, qr/[0-9a-f]{32}/, 'no key is in it');
	return $rows;
}

# The fingerprint of the keys of persons.
sub fingerprints
{
	return $node->safe_psql('postgres',
		q{SELECT string_agg(DISTINCT key_encryption_key, ' ') FROM es_subject_keys WHERE key IS NOT NULL});
}

sub append
{
	my ($n) = @_;

	return qq{SELECT es_append('person-$n', 'any', 'registered', '{"name": "name"}')};
}

#
# The first file
#

sql($node, q{SELECT es_append('other-1', 'any', 'x')}, q{SELECT es_define_event_type('registered')});
is(health(), '', 'a store without personal attributes needs no file');
set_key_files($node, "$first.not");
is(health(), '', 'nor one that can be used');
sql($node, q{SELECT es_define_event_type('registered', personal => '{name}')});
like(health(),
	qr/^1 key_file_unusable eventstore.key_file: Appends with personal attributes are refused, at least those of new persons: key file "\Q$first\E.not" cannot be used. It cannot be opened: No such file or directory\.$/,
	'a file that is not there');
like(health(delay => 3600), qr/^1 key_file_unusable/, 'at once');
set_key_files($node);
like(health(), qr/^1 key_file_unusable .*: there is no key to encrypt personal attributes with. eventstore.key_file is not set\.$/, 'none');
set_key_files($node, $open, $first);
like(health(), qr/^1 key_file_unusable .*"\Q$open\E" cannot be used. Others than its owner may read/, 'the first may not be used, and another one may');
set_key_files($node, $first, $second, $open, "$first.not");
like(health(),
	qr/\A7 key_file_unusable key file "\Q$first\E.not": .*, and it cannot be used. It cannot be opened: No such file or directory. What its key wraps is not opened\.\n7 key_file_unusable key file "\Q$open\E": .* Others than its owner .*\z/,
	'two of the others may not be used');
set_key_files($node, $first);
is(health(), '', 'the file is there');
sql($node, append(1), append(2));
my $old = fingerprints();
is(health(), '', 'and wraps keys');

# A session that has read the file sees that it goes.
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $query = q{SELECT coalesce(string_agg(problem, ' ' ORDER BY problem), 'nothing') FROM es_health WHERE problem <> 'worker_missing';};

is($session->query($query), 'nothing', 'a session');
rename $first, "$first.gone" or die "rename: $!";
is($session->query($query), 'key_file_unusable key_missing', 'the file is gone');
rename "$first.gone", $first or die "rename: $!";
is($session->query($query), 'nothing', 'it is there again');
$session->quit;

#
# Keys of persons that no file opens
#

set_key_files($node, $second);
like(health(), qr/^3 key_missing key-encryption key $old: 2 keys of persons are wrapped by it, and no key file has it that can be used/, 'the wrong file');
sql($node, append(3));
like(health(), qr/^3 key_missing key-encryption key $old: 2 keys[^\n]*$/, 'new keys are wrapped by it');

# Without a definition there is nothing to append, but there are keys.
sql($node, q{SELECT es_define_event_type('registered', personal => '{}')});
set_key_files($node);
is(join(',', map { s/:.*//r } split /\n/, health()),
	'3 key_file_unusable eventstore.key_file,' . join(',', map { "3 key_missing key-encryption key $_" } sort split / /, fingerprints()),
	'no definition, and no file');
sql($node, q{SELECT es_define_event_type('registered', personal => '{name}')});

#
# A rotation
#

set_key_files($node, $second, $first);
like(health(), qr/^8 rotation_unfinished key-encryption key $old: 2 keys of persons are wrapped by it, and not by [0-9a-f]{16}, the key of the first file/, 'a rotation has begun');
is(health(delay => 60), '', 'it has an hour');
sql($node, q{SELECT es_rotate_keys(1)});
like(health(), qr/^8 rotation_unfinished key-encryption key $old: 1 key of a person is/, 'it goes on');
is($node->safe_psql('postgres',
		q{SET eventstore.health_delay = 0; SELECT since = pg_conf_load_time(), remedy, remedy_by IS NULL FROM es_health WHERE problem = 'rotation_unfinished'}),
	't|SELECT public.es_rotate_keys()|t', 'since the files were named');
sql($node, q{SELECT es_rotate_keys()});
is(health(), '', 'it has ended');

#
# A standby
#

my $standby = new_standby($node);

is(health(server => $standby), '', 'a standby with the files');
set_key_files($standby, $first, $second);
is(health(server => $standby), '', 'in another order');
set_key_files($standby);
like(health(server => $standby),
	qr/\A3 key_file_unusable eventstore.key_file: When this server is promoted, appends with personal attributes will be refused: [^\n]*\n3 key_missing key-encryption key \w+: 3 keys of persons are/,
	'without a file');

done_testing();
