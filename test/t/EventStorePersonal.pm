# Key files, random marks that stand for what is personal, and where they are found.
package EventStorePersonal;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Find qw(find);
use PostgreSQL::Test::Utils;

use EventStoreTest;

our @EXPORT = qw(new_key_file set_key_files new_mark marks_in_text marks_in_files mark_places);

my $folder = abs_path(PostgreSQL::Test::Utils::tempdir());

# A file with a random key, or with the content that is given, that its owner alone may read.
sub new_key_file
{
	my ($name, $content) = @_;
	my $path = "$folder/$name";

	unlink $path;
	append_to_file($path, $content // join('', map { sprintf '%02x', rand 256 } 1 .. 32) . "\n");
	chmod 0600, $path or die "chmod $path: $!";
	return $path;
}

# Changes the setting of a running server, and waits until new sessions have it.
sub set_key_files
{
	my ($node, @paths) = @_;
	my $setting = join ',', @paths;

	$node->append_conf('postgresql.conf', "eventstore.key_file = '$setting'");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('eventstore.key_file') = '$setting'")
	  or die 'the setting does not change';
	return;
}

# 32 bytes, all of them random but for the first two, by which they are found.
sub new_mark
{
	return 'Zq' . join '', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 30;
}

# The marks of a set that are in a text: a reference to a hash.
sub marks_in_text
{
	my ($marks, $text) = @_;
	my %found;

	for (my $at = index $text, 'Zq'; $at >= 0; $at = index $text, 'Zq', $at + 1)
	{
		my $mark = substr $text, $at, 32;

		$found{$mark} = 1 if $marks->{$mark};
	}
	return \%found;
}

# The same of each file below folders, by its path from there.
sub marks_in_files
{
	my ($marks, @folders) = @_;
	my %found;

	foreach my $top (@folders)
	{
		find({
				no_chdir => 1,
				wanted   => sub {
					return unless -f $File::Find::name && open(my $file, '<:raw', $File::Find::name);
					my $content = do { local $/ = undef; readline $file } // '';
					my $here = marks_in_text($marks, $content);

					close $file;
					$found{ $File::Find::name =~ s{^\Q$top\E/}{}r } = $here if %$here;
				}
			}, $top);
	}
	return \%found;
}

# What files of a database, or others, have marks, as names of relations: "es_events 300, pg_wal 299".
sub mark_places
{
	my ($node, $database, $found) = @_;
	my %relation = map { split /\|/ } split /\n/, $node->safe_psql($database,
		q{SELECT pg_relation_filepath(c.oid), coalesce(t.relname || '.toast', c.relname) FROM pg_class c
		    LEFT JOIN pg_class t ON t.reltoastrelid = c.oid WHERE c.relkind IN ('r', 'i', 't', 'm', 'S')});
	my %places;

	foreach my $path (keys %$found)
	{
		my $name = $relation{ $path =~ s/(\.\d+|_\w+)$//r } // $path =~ s{/.*}{}r;

		@{ $places{$name} }{ keys %{ $found->{$path} } } = ();
	}
	return { map { $_ => scalar keys %{ $places{$_} } } keys %places };
}

1;
