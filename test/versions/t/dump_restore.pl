# Dump and restore of a store full of everything between servers of different versions.
# From an older to a later one by pg_dump of the later one, which is what is supported.
# From a later to an older one there is no support by PostgreSQL; plain SQL works, but
# for settings that the older one does not know.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreFull;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dumps = PostgreSQL::Test::Utils::tempdir();

sub dump_to
{
	my ($node, $with, $file, @options) = @_;

	return $with->command_ok([ 'pg_dump', @options, '-f', "$dumps/$file", $node->connstr('postgres') ], "pg_dump @options to $file");
}

sub is_moved
{
	my ($node, $state, $name) = @_;

	is(state_of($node, next_xids => 0), $state, "$name: everything is as it was");
	# no dump has it
	$node->safe_psql('postgres', q{SELECT es_index_attribute('moved', 'city')});
	has_index($node, $name);
	goes_on($node, $name);
	$node->stop;
	return;
}

sub to_later
{
	my ($version, $old, $state) = @_;

	foreach my $how ([ 'directory', '-Fd', '-j', '2' ], [ 'plain', '-Fp' ])
	{
		my ($format, @options) = @$how;
		my $name = "from $version, $format";
		my $new = new_store("later_${version}_$format", fsync => 'off', extension => 0);

		dump_to($old, $new, "$version.$format", @options);
		$new->command_ok(
			$format eq 'plain'
			? [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $new->connstr('postgres'), '-f', "$dumps/$version.$format" ]
			: [ 'pg_restore', '--exit-on-error', '-d', $new->connstr('postgres'), "$dumps/$version.$format" ],
			"$name: restored");
		is_moved($new, $state, $name);
	}
	return;
}

# Settings that the older server does not know are the only errors.
sub to_older
{
	my ($version, $server, $new, $state) = @_;
	my $old = new_store("older_$version", fsync => 'off', extension => 0, server => $server);
	my (undef, undef, $errors) = $old->psql('postgres', slurp_file("$dumps/later.plain"), on_error_stop => 0);

	is(join("\n", grep { !/unrecognized configuration parameter "transaction_timeout"$/ } $errors =~ /ERROR: .*/g), '',
		"to $version: plain SQL has no other errors");
	is_moved($old, $state, "to $version");
	return;
}

plan skip_all => 'there is no older server' unless old_servers();
my $later = new_store('later', fsync => 'off');
fill($later);
is_full($later, 'later');
my $later_state = state_of($later, next_xids => 0);
dump_to($later, $later, 'later.plain', '-Fp');
foreach my $server (old_servers())
{
	my ($version, $folder) = @$server;
	my $old = new_store("from_$version", fsync => 'off', server => $folder);

	if (!cannot_move($old, $later, "from $version"))
	{
		fill($old);
		is_full($old, $version);
		to_later($version, $old, state_of($old, next_xids => 0));
	}
	$old->stop;
	to_older($version, $folder, $later, $later_state);
}
$later->stop;
done_testing();
