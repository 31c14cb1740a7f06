# The picture of doc/compare/peers.md, from picture.dat in the folder.
data = folder . "/picture.dat"
stats data using 4 name "first" nooutput
stats data using 5 name "second" nooutput
stats data using 6 name "third" nooutput
max(a, b) = a > b ? a : b

# A row for each size.
rows = first_blocks / 2
set terminal svg size 900,320 * rows font "sans-serif,13" background rgb "white"
set style data histogram
set style histogram clustered gap 1
set style fill solid
set boxwidth 0.9
set xrange [-0.6:2.6]
set xtics nomirror scale 0
set ytics nomirror
set grid ytics linecolor rgb "#dddddd"
set border 3
set xlabel "clients"
set format y "%.0f"
array colors[3] = ["#1f6fb4", "#e08a1e", "#7f7f7f"]
array names[3] = ["eventstore", "message-db", "emmett"]

# The same scale everywhere, with room for the figures.
set yrange [0:1.12 * max(first_max, max(second_max, third_max))]

set multiplot layout rows,2 title "Appends a second: median of the rounds" font ",16"
do for [block = 0:2 * rows - 1] {
	stats data index block every ::0::0 using (events = strcol(1), layout = strcol(2), 0) nooutput
	set title sprintf("%s events stored, %s", events, layout eq "one" ? "one category" : "100 categories")
	if (block == 0) { set key top left reverse Left samplen 1 } else { unset key }
	plot for [s = 1:3] data index block using (column(s + 3)):xtic(3) title names[s] linecolor rgb colors[s], \
		for [s = 1:3] data index block using ($0 + (s - 2) * 0.25):(column(s + 3)):(sprintf("%.0f", column(s + 3))) \
			with labels offset 0, 0.6 font ",9" notitle
}
unset multiplot
