# A live store moves to another server and back, by the script examples/cutover/cutover, under load.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreCutover;
use EventStoreRouted;
use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my ($old, $new) = map { new_store($_, extension => 0, fsync => 'off', streaming => 1,
	conf => "${cutover_conf}eventstore.autostart_workers = 2\nautovacuum = off\n") } qw(old new);
my $move = new_cutover('cutover', $old, $new);

$old->safe_psql('shop', q{CREATE TABLE shop.without_key (n int)});
like(cutover_step($move, 'check', 'failed'), qr/PROBLEM  table shop.without_key has no primary key/, 'a table without a key is a problem');
$old->safe_psql('shop', q{DROP TABLE shop.without_key});
cutover_step($move, 'check');
start_clients($move);
appends_go_on('the old server has events', 20);
like(cutover_step($move, 'switch', 'failed'), qr/compare first/, 'a switch needs a comparison');
cutover_step($move, $_) foreach qw(setup setup wait compare);

# A switch that cannot be made
my $holder = $old->background_psql('shop');
$holder->query_safe(q{BEGIN; SELECT es_append('holder-1', 'any', 'e')});
append_to_file($move->{conf}, "PATIENCE=1\n");
like(cutover_step($move, 'switch', 'failed'), qr/not switched: the old server goes on/, 'an open append undoes a switch');
append_to_file($move->{conf}, "PATIENCE=60\n");
$holder->query_safe('ROLLBACK');
$holder->quit;
appends_go_on('the old server goes on', 10);

like(cutover_step($move, 'switch'), qr/\d s without writes/, 'the time is measured');
cutover_step($move, 'switch');
appends_go_on('the new server goes on', 20);
my ($status, undef, $error) = run_psql($old->connstr('shop') . ' user=app', q{SELECT es_append('x-1', 'any', 'e')});
like($error, qr/too many connections/, 'nobody gets to the old server');
like((run_psql($old->connstr('shop'), q{SELECT es_append('x-1', 'any', 'e')}))[2], qr/ERROR:  55000/, 'and superusers cannot append there');

cutover_step($move, 'back');
appends_go_on('the old server goes on again', 20);
finish_clients($old);
has_everything_once($move, $old);
$_->stop foreach $old, $new;
done_testing();
