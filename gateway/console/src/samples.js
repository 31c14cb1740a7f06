// Figures of the last minutes, for the charts. They are taken for as long as somebody is signed in, so that a chart
// has a past when its page is opened. Nothing of them is stored.
import { useEffect, useState } from 'preact/hooks';
import { get } from './api.js';
import { exact, toBigInt } from './json.js';
import { paths } from './paths.js';

const every = 2000;
const most = 450;

const store = { samples: [], latest: null, error: null, watchers: new Set() };

// The difference of two counters a second; a counter that went back (a restart) has no rate.
function perSecond(now, before, milliseconds) {
	if (now === undefined || now === null || before === undefined || before === null || milliseconds <= 0) return null;
	const difference = toBigInt(now) - toBigInt(before);
	return difference < 0n ? null : Number(difference) * 1000 / milliseconds;
}

function sumOf(rows, key) {
	return rows?.length ? rows.reduce((total, row) => total + toBigInt(row[key]), 0n) : null;
}

function keep(latest, t) {
	const last = store.samples.at(-1);
	const apart = last ? t - last.t : 0;
	const appends = sumOf(latest.stats?.categories, 'appends');
	store.latest = latest;
	store.samples.push({
		t,
		raw: { appends, position: latest.overview.last_position },
		appends: last ? perSecond(appends, last.raw.appends, apart) : null,
		events: last ? perSecond(latest.overview.last_position, last.raw.position, apart) : null,
		lag: new Map(latest.projections.map((one) => [one.name, Number(exact(one.lag_events ?? 0))])),
	});
	if (store.samples.length > most) store.samples.shift();
}

// What the role may not see is left out.
async function optional(path, otherwise) {
	try {
		return await get(path);
	} catch (error) {
		if (error.status === 403) return otherwise;
		throw error;
	}
}

async function take() {
	try {
		const [overview, projections, stats] = await Promise.all([
			get(paths.overview()), optional(paths.projections(), []), optional(paths.stats(), null),
		]);
		keep({ overview, projections, stats }, Date.now());
		store.error = null;
	} catch (error) {
		store.error = error;
	}
	store.watchers.forEach((watch) => watch());
}

// Takes samples until the returned function is called.
export function startSamples(onSample) {
	let timer;
	let over = false;
	const watch = () => { if (store.latest) onSample(store.latest.overview); };
	const next = async () => {
		if (!document.hidden || !store.latest) await take();
		if (!over) timer = setTimeout(next, every);
	};
	store.watchers.add(watch);
	next();
	return () => {
		over = true;
		clearTimeout(timer);
		store.watchers.delete(watch);
		store.samples = [];
		store.latest = null;
	};
}

export function useSamples() {
	const [, setTurn] = useState(0);
	useEffect(() => {
		const watch = () => setTurn((n) => n + 1);
		store.watchers.add(watch);
		return () => store.watchers.delete(watch);
	}, []);
	return store;
}
