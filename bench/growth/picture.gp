# The picture of doc/operate/growth.md, from picture.dat in the folder: how fast each is,
# or how small, against the first size.
data = folder . "/picture.dat"
set datafile separator "\t"
stats data using 2 every ::1 name "first" nooutput
sizes = words(system("head -n 1 " . data . " | cut -f 2- | tr '\\t' ' '"))
array colors[3] = ["#1f6fb4", "#e08a1e", "#7f7f7f"]
rows = first_records

set terminal svg size 900,90 + 19 * rows noenhanced font "sans-serif,11" background rgb "white"
set style fill solid
set lmargin at screen 0.5
set rmargin at screen 0.94
set tmargin 5
set xrange [0:1.6]
set yrange [-0.7:rows - 0.3]
set xtics nomirror 0.2 format "%.1f"
set ytics nomirror scale 0
set grid xtics linecolor rgb "#dddddd"
set border 1
set key at screen 0.5, screen 0.97 left top Left reverse horizontal samplen 1
set label "Speed, or size, against the smallest log: 1 is as before, more is better; bars end at 1.6" at screen 0.5, screen 0.985 center font ",13"
set arrow from 1, graph 0 to 1, graph 1 nohead linecolor rgb "#404040" front
set arrow from 0.9, graph 0 to 0.9, graph 1 nohead dashtype 2 linecolor rgb "#a0a0a0" front
height = 0.8 / sizes
name(s) = system(sprintf("head -n 1 %s | cut -f %d", data, s + 1)) . " events"
cut(x) = x > 1.6 ? 1.6 : x
plot for [s = 1:sizes] data every ::1 using (cut(column(s + 1)) / 2):($0 + 0.4 - (s - 0.5) * height):(cut(column(s + 1)) / 2):(height / 2):ytic(1) \
	with boxxyerror linecolor rgb colors[s] title name(s), \
	for [s = 1:sizes] data every ::1 using (cut(column(s + 1))):($0 + 0.4 - (s - 0.5) * height):(sprintf("%.2f", column(s + 1))) \
	with labels left offset 0.3, 0 font ",8" notitle
