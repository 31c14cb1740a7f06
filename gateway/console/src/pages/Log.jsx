// The log, live: the newest events, and then each new one, by category, types and tags.
import { useEffect, useRef, useState } from 'preact/hooks';
import { follow, get } from '../api.js';
import { paths } from '../paths.js';
import { exact, parseJson } from '../json.js';
import { integer } from '../format.js';
import { Empty, Fault, Filters, Page, valuesOf } from '../components/basics.jsx';
import { EventList } from '../components/Events.jsx';

const most = 300;
const paint = 250;
const labels = { category: 'Category', types: 'Types', tags: 'All of these tags' };

const words = (text) => text.split(/[\s,]+/).filter(Boolean);

// Filters of the page as parameters of the API.
function parametersOf(filters) {
	return { category: filters.category, types: words(filters.types), tags: words(filters.tags) };
}

// The newest events, and those that come. New ones are collected and shown a few times a second.
function useLog(filters, paused) {
	const [state, setState] = useState({ events: [], status: 'connecting', arrived: 0 });
	const pausedNow = useRef(paused);
	const fresh = useRef([]);
	pausedNow.current = paused;
	const key = JSON.stringify(filters);
	useEffect(() => {
		const abort = new AbortController();
		const parameters = parametersOf(filters);
		fresh.current = [];
		setState({ events: [], status: 'connecting', arrived: 0 });
		const show = () => {
			if (pausedNow.current || !fresh.current.length) return;
			const news = fresh.current.splice(0).reverse();
			setState((old) => ({ ...old, events: [...news, ...old.events].slice(0, most), arrived: old.arrived + news.length }));
		};
		const timer = setInterval(show, paint);
		const start = async () => {
			const body = await get(paths.events({ ...parameters, backward: true, limit: 50 }), { signal: abort.signal });
			const upto = body.length ? exact(body[0].position) : '0';
			setState((old) => ({ ...old, events: body, upto: Number(upto), loaded: true }));
			await follow(paths.events({ ...parameters, after_position: upto }), {
				signal: abort.signal,
				onEvent: (event) => {
					if (event.data) fresh.current.push(parseJson(event.data));
					if (fresh.current.length > most) fresh.current.shift();
				},
				onState: (status) => setState((old) => ({ ...old, status })),
			});
		};
		start().catch((error) => { if (!abort.signal.aborted) setState((old) => ({ ...old, status: error })); });
		return () => {
			abort.abort();
			clearInterval(timer);
		};
	}, [key]);
	return state;
}

function Status({ status, paused }) {
	if (paused) return <span><span class="dot" />Paused</span>;
	if (status === 'live') return <span><span class="dot live" />Live</span>;
	if (status === 'connecting') return <span><span class="dot" />Connecting…</span>;
	return <span><span class="dot bad" />Interrupted</span>;
}

export function Log({ query }) {
	const [paused, setPaused] = useState(false);
	const filters = valuesOf(labels, query);
	const log = useLog(filters, paused);
	const fault = typeof log.status === 'string' ? null : log.status;
	return (
		<Page title="Log" about="The newest event comes first; new ones come by themselves." actions={(
			<>
				<span role="status"><Status status={log.status} paused={paused} /></span>
				<button aria-pressed={paused} onClick={() => setPaused(!paused)}>{paused ? 'Go on' : 'Pause'}</button>
			</>
		)}>
			<Filters labels={labels} values={filters} placeholders={{ category: 'order', types: 'placed, paid', tags: 'customer:ann' }} />
			<Fault error={fault} />
			<section class="card flush" aria-label="Events">
				{log.arrived > 0 && <p class="pager muted number">{integer(log.arrived)} new since the page was opened</p>}
				{log.loaded && log.events.length === 0 && <Empty>No event matches yet.</Empty>}
				<EventList events={log.events} freshAfter={log.upto} />
			</section>
		</Page>
	);
}
