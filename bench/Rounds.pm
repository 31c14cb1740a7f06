package Rounds;

# Shared code of the benchmarks: one measurement with pgbench, and the evaluation
# of the figures of several rounds.
use strict;
use warnings;
use Exporter qw(import);

our @EXPORT = qw(write_file run_pgbench count_pgbench median ratios grouped turned);

sub write_file
{
	my ($folder, $name, $text) = @_;
	my $file = "$folder/" . $name =~ s/\W+/-/gr;

	open my $out, '>', $file or die "$file: $!\n";
	print $out $text;
	close $out or die "$file: $!\n";
	return $file;
}

# Transactions a second of one script, for so many seconds.
sub run_pgbench
{
	my ($file, $clients, $seconds, @options) = @_;

	return call_pgbench($file, $clients, '-T', $seconds, @options);
}

# The same for so many transactions in all, divided among the clients.
sub count_pgbench
{
	my ($file, $clients, $transactions, @options) = @_;

	return call_pgbench($file, $clients, '-t', int($transactions / $clients) || 1, @options);
}

sub call_pgbench
{
	my ($file, $clients, @options) = @_;
	my $jobs = $clients < 2 ? 1 : 2;

	open my $out, '-|', qw(sh -c), 'exec "$@" 2>&1', 'sh', qw(pgbench -n -M prepared -c), $clients, '-j', $jobs, @options, '-f', $file
	  or die "pgbench: $!\n";
	my $output = join '', <$out>;
	close $out;
	my ($tps) = $output =~ /^tps = ([0-9.]+)/m;
	die "$file failed:\n$output" if $? != 0 || !defined $tps || $output =~ /aborted|ERROR/;
	return $tps;
}

# Turns a list so that each round begins with another one.
sub turned
{
	my ($by, @list) = @_;

	push @list, shift @list for 1 .. $by % @list;
	return @list;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;

	return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}

# Of one figure to another, round by round, in their order.
sub ratios
{
	my ($ours, $theirs) = @_;

	return sort { $a <=> $b } map { $ours->[$_] / $theirs->[$_] } 0 .. $#$ours;
}

# 1234567 is 1,234,567.
sub grouped
{
	my ($number) = @_;
	my $text = sprintf '%.0f', $number;

	1 while $text =~ s/^(\d+)(\d{3})/$1,$2/;
	return $text;
}

1;
