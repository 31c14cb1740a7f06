# The demo's converter against a repository with everything in it that git allows:
# the history goes in as events, and the log up to any commit is its tree; the
# projections are what git says.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreTest;
use IPC::Run qw(run);
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'git is needed' unless eval { run([ 'git', '--version' ], '>', \my $out) };

my $demo = "$FindBin::RealBin/../../examples/demo";
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = new_store('demo', workers => 2);

# As in examples/demo/run.
my $import = <<'END';
CREATE TEMPORARY TABLE git_change (ordinal bigint, stream text, type text,
	data jsonb, metadata jsonb, seconds bigint) ON COMMIT DELETE ROWS;
PREPARE store AS
	INSERT INTO es_import (stream, type, data, metadata, id, occurred_at)
	SELECT stream, type, data, metadata,
	       es_digest(type, data, CASE type WHEN 'committed' THEN '{commit}'::text[]
	                                       ELSE '{commit,path}' END),
	       to_timestamp(seconds)
	  FROM git_change ORDER BY ordinal;
END
my $fold = <<'END';
COPY (SELECT data->>'mode', data->>'blob', data->>'path'
        FROM (SELECT DISTINCT ON (stream) type, data
                FROM es_read_category('file') WHERE position <= %d
               ORDER BY stream, version DESC) AS last
       WHERE type <> 'file_deleted') TO STDOUT
END
my $projections = <<'END';
CREATE TABLE file (stream text PRIMARY KEY, path text, mode text, blob text);
SELECT es_create_projection('tree', category => 'file', tables => '{file}', query => $$
	MERGE INTO file USING (SELECT DISTINCT ON (stream) stream, type, data
	                       FROM new_events ORDER BY stream, version DESC) AS last
	ON file.stream = last.stream
	WHEN MATCHED AND type = 'file_deleted' THEN DELETE
	WHEN MATCHED THEN UPDATE SET mode = data->>'mode', blob = data->>'blob'
	WHEN NOT MATCHED AND type <> 'file_deleted' THEN
		INSERT VALUES (last.stream, data->>'path', data->>'mode', data->>'blob') $$);
CREATE TABLE author (name text PRIMARY KEY, commits bigint NOT NULL);
SELECT es_create_projection('authors', mode => 'sync', category => 'commit', tables => '{author}', query => $$
	INSERT INTO author SELECT data->>'author', count(*) FROM new_events GROUP BY 1
	ON CONFLICT (name) DO UPDATE SET commits = author.commits + excluded.commits $$);
END
my $files = 'COPY (SELECT mode, blob, path FROM file) TO STDOUT';
my $authors = 'COPY (SELECT name, commits FROM author) TO STDOUT';

$ENV{PGCLIENTENCODING} = 'UTF8';

sub output_of
{
	my @command = @_;
	my ($out, $err);

	run([@command], '>', \$out, '2>', \$err) or die "@command: $err";
	return $out;
}

sub sorted
{
	return join '', map { "$_\n" } sort split /\n/, $_[0];
}

sub import_history
{
	my $file = "$folder/history.sql";

	unlink $file;
	append_to_file($file, $import);
	run([ "$demo/git-events", 'HEAD' ], '>>', $file, '2>', "$folder/progress")
	  or die slurp_file("$folder/progress");
	return finish_psql(start_psql($node, $file, "$folder/import"));
}

# What a query returns, compared with what git has, as "git-events OPTION" writes it.
sub is_as_git
{
	my ($sql, $option, $commit) = @_;
	my $got = output_of('psql', '-XAtq', '-d', $node->connstr('postgres'),
		'-c', 'SET work_mem = \'64MB\'', '-c', $sql);

	return sorted($got) eq sorted(output_of("$demo/git-events", $option, $commit));
}

sub has_read_models
{
	my ($name) = @_;

	is_query($node, q{SELECT es_wait('tree', es_horizon(), '60s')}, 't', "$name: a worker has followed");
	ok(is_as_git($files, '--tree', 'HEAD'), "$name: the tree is that of HEAD");
	ok(is_as_git($authors, '--authors', 'HEAD'), "$name: the authors are those of git shortlog");
	return;
}

sub imports_repository
{
	my ($name, @options) = @_;
	my ($events, @commits, @wrong);

	output_of("$FindBin::RealBin/make-repository", "$folder/$name", @options);
	local $ENV{GIT_DIR} = "$folder/$name/.git";
	$node->safe_psql('postgres', 'DROP EXTENSION IF EXISTS eventstore');
	$node->safe_psql('postgres', 'DROP TABLE IF EXISTS file, author');
	$node->safe_psql('postgres', 'CREATE EXTENSION eventstore');
	$node->safe_psql('postgres', $projections);

	ok(import_history(), "$name: its history goes in");
	$events = $node->safe_psql('postgres', 'SELECT count(*) FROM es_events');
	@commits = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres',
		q{SELECT data->>'commit', position FROM es_read_category('commit')});
	is(scalar(@commits) . "\n", output_of('git', qw(rev-list --first-parent --count HEAD)),
		"$name: each commit is one event");

	# all the odd ones, which come first, and some ordinary ones
	@wrong = grep { !is_as_git(sprintf($fold, $commits[$_][1]), '--tree', $commits[$_][0]) }
	  grep { $_ < 120 || $_ % 20 == 0 || $_ == $#commits } 0 .. $#commits;
	is("@wrong", '', "$name: the log up to a commit is the commit's tree");
	has_read_models($name);
	holds_versions_dense($node, $name);
	holds_horizon_at_end($node, $name);

	ok(import_history(), "$name: its history goes in once more");
	is_query($node, 'SELECT count(*) FROM es_events', $events, "$name: and nothing is stored twice");
	$node->safe_psql('postgres', q{UPDATE file SET blob = 'spoiled'; UPDATE author SET commits = 0});
	$node->safe_psql('postgres', "SELECT es_rebuild_projection('$_')") for qw(tree authors);
	has_read_models("$name, rebuilt");
	note("$name: $events events of " . @commits . ' commits');
	return;
}

imports_repository('sha1', '--changes', few_or_many(600, 2000));
imports_repository('sha256', '--sha256');
$node->stop;
done_testing();
