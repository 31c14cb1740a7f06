# The check of the documents finds each kind of fault, and nothing in a tree without one.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);
use Test::More;

my $tool = dirname(abs_path(__FILE__)) . '/../tools/prose';
my $tree = tempdir(CLEANUP => 1);

# A tree without a fault.
my %good = (
	'README.md'     => "# A `name`\n\n[a](doc/a.md#two-words-b_c), [here](#a-name), [out](https://example.org/#x)\n",
	'doc/a.md'      => "# Two words `b_c`\n\n## Twice\n\n## Twice\n\n[up](../README.md), [folder](b/), [second](b/c.md#twice-1)\n",
	'doc/b/c.md'    => "[a](../a.md#twice), `[code](gone.md)`\n\n```sh\n# Twice\n[x](gone.md)\n```\n\n# Twice\n\n# Twice\n",
	'doc/README.md' => "[a](a.md), [c](b/c.md#twice)\n",
	'sql/a.sql'     => "-- the consumer, and who may do what? Nobody.\n",
	'test/sql/b.sql' => "SELECT mend();\n");

sub faults
{
	my %files = (%good, @_);

	remove_tree($tree);
	foreach my $path (keys %files)
	{
		make_path(dirname("$tree/$path"));
		open(my $file, '>', "$tree/$path") or die "$path: $!\n";
		print $file $files{$path};
		close($file);
	}
	my $output = `'$tool' '$tree' 2>&1`;

	return $? == 0 ? '' : $output;
}

my $long = 'x' x 121;

is(faults(), '', 'a tree without a fault');
like(faults('doc/b/c.md' => "[a](../gone.md)\n"), qr{doc/b/c\.md:1: there is no doc/gone\.md}, 'a link to a file that is not there');
like(faults('doc/b/c.md' => "[a](../a.md#three)\n"), qr{doc/b/c\.md:1: doc/a\.md has no heading #three}, 'a link to a heading that is not there');
like(faults('doc/a.md' => "# Other\n"), qr{README\.md:3: doc/a\.md has no heading #two-words-b_c}, 'a heading that has changed');
like(faults('README.md' => "[a](#gone)\n"), qr{README\.md:1: README\.md has no heading #gone}, 'a link within a document');
like(faults('doc/new.md' => "New\n"), qr{doc/README\.md: it does not name new\.md}, 'a document that the map does not name');
like(faults('src/eventstore.h' => "#define E MAKE_SQLSTATE('E','S','0','0','9')\n"), qr{errors\.md: it does not have ES009}, 'an error that is not explained');
like(faults('doc/faq.md' => "$long\n"), qr{doc/faq\.md:1: a line of 121 characters}, 'a long line');
like(faults('doc/a.md' => "| $long |\n"), qr{doc/a\.md:1: a line of 125 characters}, 'a long row of a table');
is(faults('doc/faq.md' => "```text\n$long\n```\n", 'doc/compare/bench.md' => "| $long |\n", 'doc/README.md' => "[a](a.md), [c](b/c.md), [faq](faq.md), [bench](compare/bench.md)\n"),
	'', 'a long line that a program prints, or of a table that a benchmark writes');
like(faults('doc/compare/bench.md' => "$long\n"), qr{doc/compare/bench\.md:1: a line of 121 characters}, 'a long line beside such a table');
like(faults('README.md' => "x\n" x 201), qr{README\.md: 201 lines}, 'a long README');
is(faults('README.md' => "x\n" x 200), '', 'a README that is just short enough');
like(faults('sql/a.sql' => "-- waits in vain\n"), qr{sql/a\.sql:1: a word that is worn: in vain}, 'a worn word in a source');
like(faults('test/sql/b.sql' => "-- he waits\n"), qr{test/sql/b\.sql:1: a word that is worn: he}, 'a worn word in a test');
like(faults('sql/a.sql' => "-- what mends it\n"), qr{a word that is worn: mends}, 'a word that readers do not get');
like(faults('sql/a.sql' => "-- a fence of the row\n"), qr{a word that is worn: fence}, 'a worn word in the code of the extension');
is(faults('test/sql/b.sql' => "-- one fence, by the way\n"), '', 'words that are worn elsewhere');
foreach my $sentence ('waits for those who append', 'gives it up', 'an expensive or a dear one', 'drops it by the way')
{
	like(faults('doc/a.md' => "$good{'doc/a.md'}It $sentence.\n"), qr{doc/a\.md:8: a word that is worn}, "a document: $sentence");
}
like(faults('doc/a.md' => "$good{'doc/a.md'}Who appends waits.\n"), qr{doc/a\.md:8: a word that is worn: Who appends}, 'a sentence whose subject is who');

done_testing();
