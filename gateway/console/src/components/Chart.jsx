// A line chart over time as SVG: one series or a few, drawn by CSS classes, with a cross-hair.
import { useEffect, useRef, useState } from 'preact/hooks';

const left = 44;
const bottom = 18;
const top = 8;

// The next "round" number at or above a value: 1, 2 or 5 times a power of ten.
function roundUp(value) {
	if (value <= 0) return 1;
	const power = 10 ** Math.floor(Math.log10(value));
	return [1, 2, 5, 10].find((n) => n * power >= value * 0.9999) * power;
}

function useWidth(ref) {
	const [width, setWidth] = useState(0);
	useEffect(() => {
		const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
		observer.observe(ref.current);
		return () => observer.disconnect();
	}, []);
	return width;
}

function clock(t) {
	const date = new Date(t);
	return [date.getHours(), date.getMinutes(), date.getSeconds()].map((n) => String(n).padStart(2, '0')).join(':');
}

function path(points, x, y) {
	let pen = 'M';
	let text = '';
	for (const [t, value] of points) {
		if (value === null) {
			pen = 'M';
			continue;
		}
		text += `${pen}${x(t).toFixed(1)} ${y(value).toFixed(1)}`;
		pen = 'L';
	}
	return text;
}

function Legend({ series }) {
	if (series.length < 2) return null;
	return (
		<ul class="legend">
			{series.map((one, i) => <li key={one.name}><span class={`swatch s${i}`} aria-hidden="true" />{one.name}</li>)}
		</ul>
	);
}

function nearest(points, t) {
	return points.reduce((best, point) => (point[1] !== null && (!best || Math.abs(point[0] - t) < Math.abs(best[0] - t))
		? point : best), null);
}

function Hover({ at, series, x, y, width, height, format }) {
	if (at === null) return null;
	const found = series.map((one) => nearest(one.points, at));
	const first = found.find(Boolean);
	if (!first) return null;
	const right = x(first[0]) > width / 2;
	return (
		<g class="hover">
			<line x1={x(first[0])} x2={x(first[0])} y1={top} y2={height - bottom} />
			{found.map((point, i) => point && <circle key={i} class={`s${i}`} r="3.5" cx={x(point[0])} cy={y(point[1])} />)}
			<text x={x(first[0]) + (right ? -8 : 8)} y={top + 10} text-anchor={right ? 'end' : 'start'}>
				{`${clock(first[0])}  ${found.map((point) => (point ? format(point[1]) : '')).join('  ')}`}
			</text>
		</g>
	);
}

export function Chart({ title, series, seconds = 300, format = String, height = 150 }) {
	const box = useRef();
	const width = useWidth(box);
	const [at, setAt] = useState(null);
	const values = series.flatMap((one) => one.points.map((point) => point[1]).filter((v) => v !== null));
	const end = Math.max(...series.flatMap((one) => one.points.slice(-1).map((point) => point[0])), 0) || Date.now();
	const start = end - seconds * 1000;
	const high = roundUp(Math.max(...values, 0));
	const x = (t) => left + ((t - start) / (end - start)) * (width - left - 6);
	const y = (v) => height - bottom - (v / high) * (height - bottom - top);
	const now = series.map((one) => one.points.at(-1)?.[1]).filter((v) => v !== null && v !== undefined);
	const summary = `${title}: ${now.length ? `now ${now.map(format).join(', ')}` : 'no data yet'}`
		+ (values.length ? `, highest ${format(Math.max(...values))}` : '');
	return (
		<figure class="chart">
			<figcaption><span>{title}</span><strong>{now.length ? now.map(format).join(' / ') : '–'}</strong></figcaption>
			<div ref={box}>
				{width > 0 && (
					<svg width={width} height={height} role="img" aria-label={summary} data-points={values.length}
						onPointerMove={(event) => setAt(start + ((event.offsetX - left) / (width - left - 6)) * (end - start))}
						onPointerLeave={() => setAt(null)}>
						{[0, 0.5, 1].map((part) => (
							<g key={part} class="grid">
								<line x1={left} x2={width - 6} y1={y(high * part)} y2={y(high * part)} />
								<text x={left - 6} y={y(high * part) + 4} text-anchor="end">{format(high * part)}</text>
							</g>
						))}
						<text class="tick" x={left} y={height - 4}>{clock(start)}</text>
						<text class="tick" x={width - 6} y={height - 4} text-anchor="end">{clock(end)}</text>
						{series.map((one, i) => {
							const points = one.points.filter((point) => point[0] >= start);
							return <path key={one.name} class={`series s${i}`} d={path(points, x, y)} />;
						})}
						<Hover at={at} series={series.map((one) => ({ points: one.points.filter((point) => point[0] >= start) }))}
							x={x} y={y} width={width} height={height} format={format} />
					</svg>
				)}
			</div>
			<Legend series={series} />
		</figure>
	);
}
