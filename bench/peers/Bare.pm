package Bare;

# Appends after a bare CREATE EXTENSION, on a server that does not preload the
# library, beside message-db on that server and beside the same on the server that
# does. Workers are there that started by themselves, or, with preload, those of
# the launcher.
use strict;
use warnings;
use IPC::Open2;
use Rounds;

my @clients = (1, 8, 32);
# Name, words, database.
my @kinds = (
	[ 'alone', 'nobody listens, no projection', 'alone' ],
	[ 'listener', 'a listener', 'alone' ],
	[ 'projection', 'an async projection', 'projected' ],
	[ 'no worker', 'no worker may start', 'unserved' ]);
my $projection = 'CREATE TABLE counted (category text PRIMARY KEY, n bigint);'
  . " SELECT es_create_projection('counted', tables => '{counted}', query => \$\$INSERT INTO counted"
  . ' SELECT es_category(stream), count(*) FROM new_events GROUP BY 1 ON CONFLICT (category) DO UPDATE SET n = counted.n + excluded.n$$)';

# here: the folder of the SQL files; folder: of scripts; record: what notes a figure; port: of the server without preload.
sub new
{
	my ($class, %self) = @_;

	return bless { %self, figures => {} }, $class;
}

sub psql
{
	my ($self, $port, $database, @arguments) = @_;

	local $ENV{PGPORT} = $port;
	local $ENV{PGOPTIONS} = '-c client_min_messages=warning';
	system('psql', qw(-X -q -o /dev/null -v ON_ERROR_STOP=1 -d), $database, @arguments) == 0 or die "psql @arguments failed\n";
	return;
}

# The same events everywhere.
sub fill
{
	my ($self, $size) = @_;

	for my $port ($ENV{PGPORT}, $self->{port})
	{
		for my $database (qw(alone projected), $port == $self->{port} ? ('unserved', 'message_db') : ())
		{
			my $store = $database eq 'message_db' ? 'message-db' : 'eventstore';
			next if $store eq 'message-db' && $port != $self->{port};
			$self->psql($port, $database, '-v', 'first=1', '-v', "last=$size", '-f', "$self->{here}/fill-$store.sql", '-c', 'VACUUM (ANALYZE)');
		}
		$self->psql($port, 'projected', '-c', $projection);
	}
	return;
}

# Which port, database and store: with preload, bare, or the peer.
sub append
{
	my ($self, $what, $whose, $database, $listens, $clients) = @_;
	my $store = $whose eq 'message-db' ? 'message-db' : 'eventstore';
	my ($out, $in, $pid);

	local $ENV{PGPORT} = $whose eq 'preload' ? $ENV{PGPORT} : $self->{port};
	local $ENV{PGDATABASE} = $database;
	if ($listens)
	{
		$pid = open2($out, $in, "$self->{folder}/client", 'idle', 1);
		(<$out> // '') eq "ready\n" or die "the listener failed\n";
	}
	my $figure = run_pgbench($self->{script}{$store}, $clients, $self->{seconds}, @{ $self->{values} });
	if ($listens)
	{
		close $in;
		my $heard = <$out>;
		waitpid $pid, 0;
		die "the listener heard nothing\n" if !$heard || $heard < 1;
	}
	push @{ $self->{figures}{$what}{$whose} }, $figure;
	$self->{record}->($self->{size}, $what, $whose, $figure);
	return;
}

sub measure
{
	my ($self, $rounds, $size) = @_;

	print STDERR "filling the stores of a bare CREATE EXTENSION up to $size events\n";
	$self->{size} = $size;
	$self->fill($size);
	for my $round (1 .. $rounds)
	{
		for my $clients (@clients)
		{
			my @all = ([ 'message-db', 'message-db', 'message_db', 0 ]);

			for my $kind (@kinds)
			{
				my ($name, undef, $database) = @$kind;

				push @all, [ $name, 'bare', $database, $name eq 'listener' ];
				push @all, [ $name, 'preload', $database, $name eq 'listener' ] if $name ne 'no worker';
			}
			$self->append("bare, $_->[0], $clients", @$_[ 1 .. 3 ], $clients) for turned($round, @all);
		}
	}
	return;
}

sub row
{
	my ($self, $kind, $clients) = @_;
	my ($name, $words) = @$kind;
	my ($bare, $preload) = map { $self->{figures}{"bare, $name, $clients"}{$_} } qw(bare preload);
	my $peer = $self->{figures}{"bare, message-db, $clients"}{'message-db'};
	my @to_peer = ratios($bare, $peer);
	my @to_preload = $preload ? ratios($bare, $preload) : ();

	if ($clients == 8 && $name ne 'no worker')
	{
		for ([ 'message-db', 1.2, @to_peer ], [ 'preload', 0.9, @to_preload ])
		{
			my ($of, $expected, @ratios) = @$_;

			push @{ $self->{below} }, sprintf '%s, clients: %d, against %s: %.2f of %.2f', $words, $clients, $of, median(@ratios), $expected
			  if median(@ratios) < $expected - 0.005;
		}
	}
	return sprintf "| %s, clients: %d | %s | %s | %s | %.2f | %.2f to %.2f | %s | %s |\n", $words, $clients,
	  (map { $_ ? grouped(median(@$_)) : '' } $bare, $peer, $preload), median(@to_peer), @to_peer[ 0, -1 ],
	  @to_preload ? (sprintf('%.2f', median(@to_preload)), sprintf '%.2f to %.2f', @to_preload[ 0, -1 ]) : ('', '');
}

sub tables
{
	my ($self) = @_;

	return '' if !$self->{size};
	return "\n### After a bare CREATE EXTENSION\n\n"
	  . "Appends a second to new streams of 100 categories, on a server without shared_preload_libraries, to stores of "
	  . grouped($self->{size}) . " events. Expected with 8 clients: 1.20 of message-db, and 0.90 of itself with preload.\n\n"
	  . "| what | bare | message-db | with preload | to message-db | of the rounds | to preload | of the rounds |\n"
	  . "|---|---:|---:|---:|---:|---|---:|---|\n" . join '', map {
		my $kind = $_;
		map { $self->row($kind, $_) } @clients
	  } @kinds;
}

1;
