# The check of the sources' layout finds each kind of fault, and nothing in a tree
# without one.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);
use Test::More;

my $tool = dirname(abs_path(__FILE__)) . '/../tools/structure';
my $tree = tempdir(CLEANUP => 1);

# A tree that keeps to the layout.
my %good = (
	'eventstore.h'   => "#define ES_LIMIT 1\n",
	'retry.c'        => "#include \"append/append.h\"\n",
	'base/base.h'    => "#include \"fmgr.h\"\n",
	'base/compat.h'  => "#if PG_VERSION_NUM >= 160000\n#endif\n",
	'base/sleep.c'   => "#include \"base/base.h\"\n\nvoid\nsleep_nap(void)\n{\n}\n",
	'log/log.h'      => "#include \"base/base.h\"\n",
	'log/log.c'      => "#include \"eventstore.h\"\n#include \"log/log.h\"\n\nvoid\nlog_open(void)\n{\n}\n",
	'append/append.h' => "#include \"log/log.h\"\n");

sub make_tree
{
	my (%changes) = @_;
	my %files = (%good, %changes);

	remove_tree("$tree/src");
	foreach my $path (keys %files)
	{
		make_path(dirname("$tree/src/$path"));
		open(my $file, '>', "$tree/src/$path") or die "$path: $!\n";
		print $file $files{$path};
		close($file);
	}
}

sub faults
{
	make_tree(@_);
	my $output = `'$tool' '$tree/src' 2>&1`;

	return $? == 0 ? '' : $output;
}

is(faults(), '', 'a tree that keeps to the layout');
like(faults('base/sleep.c' => "#include \"log/log.h\"\n"), qr{base/sleep\.c:1: room base stands below room log},
	'an include of a room above');
like(faults('log/log.c' => "#include \"base.h\"\n"), qr{log/log\.c:1: there is no header "base\.h"},
	'an include without its room');
like(faults('log/log.c' => "#include \"base/gone.h\"\n"), qr{there is no header "base/gone\.h"}, 'a header that is not there');
like(faults('log/more.h' => "#include \"log/log.h\"\n", 'log/log.h' => "#include \"log/more.h\"\n"),
	qr{a cycle of headers: log/log\.h -> log/more\.h -> log/log\.h}, 'a cycle of headers');
like(faults('append/log.c' => "\n"), qr{log/log\.c: another file has this name: append/log\.c}, 'two files of one name');
like(faults('cellar/wine.c' => "\n"), qr{there is no room "cellar"}, 'a room that is not in the list');
like(faults('log/log.h' => "\n" x 251), qr{log/log\.h: the header has 251 lines}, 'a long header');
is(faults('log/log.h' => "\n" x 250), '', 'a header that is just short enough');
like(faults('log/log.c' => "#if PG_VERSION_NUM >= 170000\n#endif\n"), qr{log/log\.c:1: a test of the server's version},
	'a test of the version');
like(faults('log/log.c' => "void\nsleep_nap(void)\n{\n}\n"), qr{log/log\.c:2: another function has the name sleep_nap}, 'two functions of one name');
like(faults('log/log.c' => "void\nlog_open(void)\n{\n" . "\t;\n" x 61 . "}\n"), qr{log_open has 61 lines}, 'a long function');
is(faults('log/log.c' => "void\nlog_open(void)\n{\n" . "\t;\n" x 60 . "}\n"), '', 'a function that is just short enough');

done_testing();
