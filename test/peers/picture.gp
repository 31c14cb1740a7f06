# The picture of doc/peers.md, from picture.dat in the folder.
set terminal svg size 900,640 font "sans-serif,13" background rgb "white"
set style data histogram
set style histogram clustered gap 1
set style fill solid
set boxwidth 0.9
set yrange [0:*]
set offsets 0, 0, graph 0.12, 0
set xtics nomirror scale 0
set ytics nomirror
set grid ytics linecolor rgb "#dddddd"
set border 3
set xlabel "clients"
set format y "%'.0f"
set decimal locale
array colors[3] = ["#1f6fb4", "#e08a1e", "#7f7f7f"]
array names[3] = ["eventstore", "message-db", "emmett"]
data = folder . "/picture.dat"

set multiplot layout 2,2 title "Appends a second: median of the rounds" font ",16"
do for [block = 0:3] {
	stats data index block every ::0::0 using (events = strcol(1), layout = strcol(2), 0) nooutput
	set title sprintf("%s events stored, %s", events, layout eq "one" ? "one category" : "100 categories")
	if (block == 0) { set key top left reverse Left samplen 1 } else { unset key }
	plot for [s = 1:3] data index block using (column(s + 3)):xtic(3) title names[s] linecolor rgb colors[s], \
		for [s = 1:3] data index block using ($0 + (s - 2) * 0.25):(column(s + 3)):(sprintf("%.0f", column(s + 3))) \
			with labels offset 0, 0.6 font ",9" notitle
}
unset multiplot
