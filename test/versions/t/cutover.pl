# A live store moves to a server of another major version and back, under load, by the script
# examples/cutover/cutover: from an older one to this one, and from this one to the older.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreCutover;
use EventStoreFull;
use EventStoreRouted;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

sub moves
{
	my ($name, $from, $to) = @_;
	my ($old, $new) = map { new_store("$_->[0] $name" =~ s/\W+/_/gr, extension => 0, fsync => 'off',
		conf => "${cutover_conf}eventstore.autostart_workers = 2\nautovacuum = off\n", @{ $_->[1] }) } [ old => $from ], [ new => $to ];

	# the script itself takes out of a dump what an older server does not know
	if ($name =~ /^from/ && cannot_move($old, $new, $name))
	{
		$_->stop foreach $old, $new;
		return;
	}
	my $move = new_cutover($name, $old, $new);

	start_clients($move);
	appends_go_on("$name: the old server has events", 20);
	cutover_step($move, $_) foreach qw(check setup wait compare);
	like(cutover_step($move, 'switch'), qr/\d s without writes/, "$name: the time is measured");
	appends_go_on("$name: the new server goes on", 20);
	cutover_step($move, 'back');
	appends_go_on("$name: the old server goes on again", 20);
	finish_clients($old);
	has_everything_once($move, $old);
	$_->stop foreach $old, $new;
	return;
}

use_seed();
foreach my $old (old_servers())
{
	my ($version, $server) = @$old;

	moves("from $version", [ server => $server ], []);
	forget_clients();
	moves("to $version", [], [ server => $server ]);
	forget_clients();
}
done_testing();
