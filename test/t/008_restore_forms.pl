# Each kind of addition alone comes along in every form of dump, as kinds side by side may
# hide what one of them needs.  The few are some kinds, each in a form that is chosen at random;
# with LONG=1 it is every kind, and all of them together, in every form.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreCopies;
use EventStoreTest;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Test::More;

use_seed();
my $node = new_store('store', fsync => 'off', extension => 0, conf => 'wal_level = logical');
my $other = new_store('other', fsync => 'off', extension => 0, conf => 'wal_level = logical');
my @forms = copy_forms();

# The kinds of additions, in this form or in all of them.
sub copies
{
	my ($name, $kinds, @in_forms) = @_;
	my $source = "source_$name" =~ s/\W/_/gr;
	my $expected;

	make_source($node, $source, 'public', @$kinds);
	$expected = state_of_copy($node, $source);
	foreach my $form (@in_forms)
	{
		my $copy = "${source}_$form->{name}" =~ s/^source_//r;

		restore_form($other, $copy, dump_form($node, $source, $form), $form, $expected);
		$other->safe_psql('postgres', "DROP DATABASE $copy");
	}
	return;
}

make_roles($_) foreach ($node, $other);
copies($_, [$_], few_or_many(0, 1) ? @forms : $forms[ rand @forms ])
  foreach (shuffle kinds_of_additions())[ 0 .. few_or_many(4, scalar(my @all = kinds_of_additions())) - 1 ];
copies('everything', [], @forms) if few_or_many(0, 1);

$_->stop foreach ($node, $other);
done_testing();
