# A store with every kind of addition goes from an older server to a later one, in every form
# of dump, by pg_dump of either, and by pg_upgrade.  The copy has the same definitions and rows,
# and each role reads and appends there what it did before.  From a server to another one of
# its version it is 008_restore and 008_restore_forms that show it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreFull;
use EventStoreCopies;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my @forms = copy_forms();
my %few = map { $_ => 1 } qw(plain custom jobs_four untriggered);

# Of one version; 18 has checksums unless it is told otherwise.
sub new_server
{
	my ($name, @params) = @_;

	return new_store($name, fsync => 'off', extension => 0, conf => 'wal_level = logical', initdb => ['--data-checksums'], @params);
}

# In each form, by pg_dump of this node.
sub copies
{
	my ($old, $new, $expected, $with, $by) = @_;

	foreach my $form (grep { few_or_many($few{ $_->{name} }, 1) } @forms)
	{
		my $copy = $old->name . "_${by}_$form->{name}";

		restore_form($new, $copy, dump_form($old, 'source', $form, $with), $form, $expected);
		$new->safe_psql('postgres', "DROP DATABASE $copy");
	}
	return;
}

sub moves
{
	my ($version, $folder) = @_;
	my $old = new_server("from_$version", server => $folder);
	my $new = new_server("to_$version");
	my $upgraded = new_server("upgraded_$version");
	my $expected;

	return if cannot_move($old, $new, "from $version");
	make_roles($_) foreach ($old, $new);
	make_source($old, 'source', 'public');
	is_filled($old, 'source');
	$expected = state_of_copy($old, 'source');
	copies($old, $new, $expected, $new, 'later');
	copies($old, $new, $expected, $old, 'own');
	$_->stop foreach ($old, $new, $upgraded);
	upgrade($old, $upgraded, "from $version", '--copy');
	$upgraded->start;
	is_same($upgraded, 'source', $expected, "from $version, pg_upgrade");
	$upgraded->stop;
	return;
}

plan skip_all => 'there is no older server' unless old_servers();
moves(@$_) foreach old_servers();
done_testing();
