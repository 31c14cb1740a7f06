# Databases that are dumped, and restored under another name.
package EventStoreDumps;

use strict;
use warnings;

use Exporter qw(import);
use PostgreSQL::Test::Utils;

our @EXPORT = qw(create_database dump_database dump_file restore_database);

my $folder = PostgreSQL::Test::Utils::tempdir();

# A database in which everything is found by this search_path.
sub create_database
{
	my ($node, $database, $path) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql('postgres', "ALTER DATABASE $database SET search_path = $path");
	return;
}

# The options say in which format; that of a file with "plain" at its end is SQL.  A node before
# them is one whose pg_dump makes it.
sub dump_database
{
	my ($node, $database, $file, @options) = @_;
	my $with = ref $options[0] ? shift @options : $node;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $with->command_ok([ 'pg_dump', @options, '-f', "$folder/$file", $node->connstr($database) ],
		"pg_dump of $database to $file");
}

# Where a dump is.
sub dump_file
{
	my ($file) = @_;

	return "$folder/$file";
}

# Into a database that is there.  Side by side the definitions may come before the rows of some
# table.  Their row is touched then, which is less than es_finish_restore() does.
sub restore_database
{
	my ($node, $database, $file, @options) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->command_ok(
		$file =~ /plain$/
		? [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @options, '-d', $node->connstr($database), '-f', "$folder/$file" ]
		: [ 'pg_restore', '--exit-on-error', @options, '-d', $node->connstr($database), "$folder/$file" ],
		"restore of $file @options");
	$node->safe_psql($database, 'UPDATE es_user_definitions SET definitions = definitions') if "@options" =~ /-j [2-9]/;
	return;
}

1;
