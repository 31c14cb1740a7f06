# What is stored is what doc/internals/personal.md says, and nothing but AES-256-GCM: another implementation, which gives
# the answers of published vectors, opens it with the key file alone.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStorePersonal;
use EventStoreTest;
use Digest::SHA qw(hmac_sha256 hmac_sha256_hex);
use JSON::PP;
use MIME::Base64 qw(decode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

#
# AES-256-GCM, as FIPS 197 and NIST SP 800-38D define it
#

my (@sbox, $started);

sub times_two
{
	my ($byte) = @_;

	return ($byte << 1 ^ ($byte & 0x80 ? 0x1b : 0)) & 0xff;
}

# The S-box: inverses in GF(2^8), then the affine map.
sub make_sbox
{
	my ($p, $q) = (1, 1);

	do
	{
		$p ^= times_two($p);
		$q ^= $q << 1;
		$q ^= $q << 2;
		$q = ($q ^ $q << 4) & 0xff;
		$q ^= 0x09 if $q & 0x80;
		my $x = $q;
		$x ^= (($q << $_ | $q >> 8 - $_) & 0xff) foreach 1 .. 4;
		$sbox[$p] = $x ^ 0x63;
	} while ($p != 1);
	$sbox[0] = 0x63;
	return;
}

# The round keys: 60 words of 4 bytes.
sub expand_key
{
	my ($key) = @_;
	my @words = map { [ unpack 'C4', substr $key, 4 * $_, 4 ] } 0 .. 7;
	my $constant = 1;

	make_sbox() unless $started++;
	foreach my $i (8 .. 59)
	{
		my @word = @{ $words[ $i - 1 ] };

		@word = map { $sbox[$_] } @word[ 1, 2, 3, 0 ] if $i % 8 == 0;
		@word = map { $sbox[$_] } @word if $i % 8 == 4;
		if ($i % 8 == 0) { $word[0] ^= $constant; $constant = times_two($constant) }
		$words[$i] = [ map { $word[$_] ^ $words[ $i - 8 ][$_] } 0 .. 3 ];
	}
	return [ map { @$_ } @words ];
}

sub encrypt_block
{
	my ($keys, $block) = @_;
	my @s = unpack 'C16', $block;

	$s[$_] ^= $keys->[$_] foreach 0 .. 15;
	foreach my $round (1 .. 14)
	{
		@s = map { $sbox[ $s[ ($_ + 4 * ($_ % 4)) % 16 ] ] } 0 .. 15;
		if ($round < 14)
		{
			@s = map {
				my @c = @s[ 4 * $_ .. 4 * $_ + 3 ];
				my $all = $c[0] ^ $c[1] ^ $c[2] ^ $c[3];
				map { $c[$_] ^ $all ^ times_two($c[$_] ^ $c[ ($_ + 1) % 4 ]) } 0 .. 3
			} 0 .. 3;
		}
		$s[$_] ^= $keys->[ 16 * $round + $_ ] foreach 0 .. 15;
	}
	return pack 'C16', @s;
}

# A product in GF(2^128), of two blocks.
sub gf_multiply
{
	my ($one, $other) = @_;
	my @z = (0) x 4;
	my @v = unpack 'N4', $other;

	foreach my $bit (split //, unpack 'B128', $one)
	{
		@z = map { $z[$_] ^ $v[$_] } 0 .. 3 if $bit;
		my $carry = $v[3] & 1;
		@v = map { $v[$_] >> 1 | ($_ ? ($v[ $_ - 1 ] & 1) << 31 : 0) } 0 .. 3;
		$v[0] ^= 0xe1000000 if $carry;
	}
	return pack 'N4', @z;
}

sub padded
{
	my ($text) = @_;

	return $text . "\0" x (-length($text) % 16);
}

# Encrypts or decrypts; returns the text and the tag that belongs to it.
sub gcm
{
	my ($key, $nonce, $known, $text, $decrypts) = @_;
	my $keys = expand_key($key);
	my $hash_key = encrypt_block($keys, "\0" x 16);
	my ($out, $hash) = ('', "\0" x 16);

	foreach my $i (0 .. int((length($text) + 15) / 16) - 1)
	{
		my $part = substr $text, 16 * $i, 16;

		$out .= $part ^ substr encrypt_block($keys, $nonce . pack 'N', $i + 2), 0, length $part;
	}
	my $cipher = $decrypts ? $text : $out;
	my $hashed = padded($known) . padded($cipher) . pack 'N4', 0, 8 * length $known, 0, 8 * length $cipher;

	$hash = gf_multiply($hash ^ $_, $hash_key) foreach $hashed =~ /.{16}/gs;
	return ($out, $hash ^ encrypt_block($keys, $nonce . pack 'N', 1));
}

# Opens nonce, ciphertext and tag; undef if that is not possible.
sub open_sealed
{
	my ($key, $known, $sealed) = @_;
	my ($text, $tag) = gcm($key, substr($sealed, 0, 12), $known, substr($sealed, 12, -16), 1);

	return $tag eq substr($sealed, -16) ? $text : undef;
}

#
# Published vectors: FIPS 197 C.3, and test cases 13 to 16 of the GCM specification (McGrew, Viega)
#

sub hex_of
{
	return unpack 'H*', $_[0];
}

is(hex_of(encrypt_block(expand_key(pack 'H*', join '', map { sprintf '%02x', $_ } 0 .. 31), pack 'H*', '00112233445566778899aabbccddeeff')),
	'8ea2b7ca516745bfeafc49904b496089', 'FIPS 197, C.3');
my $zero = '00' x 16;
my $key = 'feffe9928665731c6d6a8f9467308308' x 2;
my $text = 'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255';
my $cipher = '522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad';

foreach my $case (
	[ 13, '00' x 32, '00' x 12, '', '', '', '530f8afbc74536b9a963b4f1c4cb738b' ],
	[ 14, '00' x 32, '00' x 12, '', $zero, 'cea7403d4d606b6e074ec5d3baf39d18', 'd0d1c8a799996bf0265b98b5d48ab919' ],
	[ 15, $key, 'cafebabefacedbaddecaf888', '', $text, $cipher, 'b094dac5d93471bdec1a502270e3cc6c' ],
	[ 16, $key, 'cafebabefacedbaddecaf888', 'feedfacedeadbeeffeedfacedeadbeefabaddad2', substr($text, 0, 120), substr($cipher, 0, 120), '76fc6ece0f4e1768cddf8853bb2d551b' ])
{
	my ($number, @hex) = @$case;
	my ($k, $nonce, $known, $plain, $expected, $tag) = map { pack 'H*', $_ } @hex;

	is(join(' ', map { hex_of($_) } gcm($k, $nonce, $known, $plain)), join(' ', @hex[ 4, 5 ]), "GCM, test case $number: encrypted");
	is(hex_of(open_sealed($k, $known, $nonce . $expected . $tag)), $hex[3], "GCM, test case $number: opened");
	is(open_sealed($k, "$known.", $nonce . $expected . $tag), undef, "GCM, test case $number: not with something else known");
}

#
# What the store has
#

my $file = new_key_file('first');
my $file_key = pack 'H*', slurp_file($file) =~ s/\s//gr;
my $node = new_store('format', fsync => 'off', conf => "eventstore.key_file = '$file'\n");

sql($node, q{SELECT es_define_event_type('registered', schema_version => 3, personal => '{name,more}')},
	q{SELECT es_define_event_type('sent', personal => '{to}', subject => 'recipient')},
	q{SELECT es_append('person-' || n, 'any', 'registered', jsonb_build_object('name', repeat('Zoë "', n % 40), 'more', ARRAY[n], 'plan', 'gold')) FROM generate_series(1, 50) n},
	q{SELECT es_append('letter-ü', 'any', 'sent', '{"recipient": "ä-1", "to": "Zoë"}')});
is_query($node, q{SELECT DISTINCT key_encryption_key FROM es_subject_keys}, substr(hmac_sha256_hex('eventstore key-encryption key', $file_key), 0, 16),
	'the fingerprint is the beginning of an HMAC');

my %key_of;
foreach my $row (split /\n/, $node->safe_psql('postgres', q{SELECT encode(subject::bytea, 'hex') || '|' || encode(key, 'hex') FROM es_subject_keys}))
{
	my ($subject, $wrapped) = map { pack 'H*', $_ } split /\|/, $row;

	$key_of{$subject} = open_sealed($file_key, $subject, $wrapped);
}
is(scalar(grep { defined && length == 32 } values %key_of), 51, 'all keys are unwrapped by the key of the file, with the subject known');
is(scalar(keys %{ { map { $_ => 1 } values %key_of } }), 51, 'all are different');

# stream, type, id, subject, sealed, and data as they are read
my (%nonces, @wrong);
my @rows = split /\n/, $node->safe_psql('postgres', q{
	SELECT concat_ws('|', encode(e.stream::bytea, 'hex'), encode(e.type::bytea, 'hex'), replace(e.id::text, '-', ''), coalesce(e.metadata->>'schema_version', '0'),
	                 encode(p.key::bytea, 'hex'), p.value, encode(convert_to((r.data - 'plan' - 'recipient')::text, 'UTF8'), 'hex'))
	  FROM es_events e JOIN es_read() r USING (position), jsonb_each_text(e.metadata->'$personal') p});

foreach my $row (@rows)
{
	my ($stream, $type, $id, $version, $subject, $sealed, $data) = split /\|/, $row;
	my $bytes = decode_base64($sealed);

	($stream, $type, $id, $subject, $data) = map { pack 'H*', $_ } $stream, $type, $id, $subject, $data;
	$nonces{ substr $bytes, 1, 12 } = 1;
	my $known = pack('C', 1) . $id . pack 'N', $version;

	$known .= pack('N', length) . $_ foreach $subject, $stream, $type;
	push @wrong, $row unless substr($bytes, 0, 1) eq "\1" && (open_sealed($key_of{$subject}, $known, substr $bytes, 1) // '') eq $data;
}
is(scalar @rows, 51, 'there are events');
is(join("\n", @wrong), '', 'each is opened by its format, id, version, subject, stream and type, and is the attributes as JSON');
is(scalar keys %nonces, 51, 'nonces are different');
is_query($node, q{SELECT es_personal_hash('1', 'x')}, hmac_sha256_hex('x', hmac_sha256('eventstore hash of a value', $key_of{1})), 'es_personal_hash is an HMAC by a key of its own');
$node->stop;
done_testing();
