# Long polls where appenders do not wake them, as the library is not preloaded.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EventStoreLongPolls;
use Test::More;

begin('alone');
snapshot_keeps_rows();
holds_nothing_asleep('alone');
holds_nothing_after_looking('alone');
wakes_up('alone', 300, 7);
wakes_up_after_all('alone', 300);
wakes_up_in_time('alone', 300);
gives_up('alone');
is_ended('alone');
stands_in_nobodys_way('alone');
many_at_once('alone', 50);
ends_with_all('alone');
finish();
done_testing();
