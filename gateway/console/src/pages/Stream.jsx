// A stream: its events, its state at any version, and what differs between two versions.
import { useEffect, useState } from 'preact/hooks';
import { request } from '../api.js';
import { useDebounced, useResource } from '../hooks.js';
import { link, replaceQuery } from '../route.js';
import { paths } from '../paths.js';
import { integer } from '../format.js';
import { exact, toBigInt, writeJson } from '../json.js';
import { diffJson, pathText } from '../diff.js';
import { Empty, Fault, Loaded, Page, Typed } from '../components/basics.jsx';
import { EventList } from '../components/Events.jsx';
import { Json, visible } from '../components/Json.jsx';

const pageSize = 50;

// Parameters of the page that begins at a version, or behind it.
function pageAt(version, backward, inclusive) {
	if (version === undefined) return {};
	if (backward) return { before_version: (version + (inclusive ? 1n : 0n)).toString() };
	return { after_version: (version - (inclusive ? 1n : 0n)).toString() };
}

// Pages of a stream, one after the other, in either direction.
function useEventPages(name, backward, from) {
	const [state, setState] = useState({ events: [], loading: true });
	const load = async (page, signal) => {
		setState((old) => ({ ...old, loading: true, error: undefined }));
		try {
			const { body, more } = await request('GET',
				paths.stream(name, { backward: backward || undefined, limit: pageSize, ...page }), { signal });
			setState((old) => ({ events: [...old.events, ...body], more: more && body.length > 0, loading: false }));
		} catch (error) {
			if (!signal?.aborted) setState((old) => ({ ...old, error, loading: false }));
		}
	};
	useEffect(() => {
		const abort = new AbortController();
		setState({ events: [], loading: true });
		load(pageAt(from && BigInt(from), backward, true), abort.signal);
		return () => abort.abort();
	}, [name, backward, from]);
	const last = state.events.at(-1);
	return { ...state, loadMore: () => load(pageAt(toBigInt(last.version), backward, false)) };
}

function EventPages({ name, query, newest, onReload }) {
	const version = /^\d{1,18}$/.test(query.get('version') ?? '') ? query.get('version') : undefined;
	const backward = query.get('order') !== 'forward';
	const pages = useEventPages(name, backward, version);
	const first = pages.events[0];
	const news = backward && !version && first ? toBigInt(newest) - toBigInt(first.version) : 0n;
	return (
		<section class="card flush" aria-label="Events">
			<div class="cardhead">
				<h2>{version ? `Events from version ${integer(version)}` : 'Events'}</h2>
				<div class="actions">
					{version && <a class="button" href={link('streams', name)}>All events</a>}
					<button onClick={() => replaceQuery({ order: backward ? 'forward' : null })}>
						{backward ? 'Oldest first' : 'Newest first'}
					</button>
				</div>
			</div>
			<Fault error={pages.error} />
			{news > 0n && <div class="pager"><button onClick={onReload}>Show {integer(news)} newer</button></div>}
			{pages.events.length === 0 && !pages.loading && !pages.error && <Empty>No event is left here.</Empty>}
			<EventList events={pages.events} numberedBy="version" withStream={false} open={version} />
			{pages.loading && <Empty>Loading…</Empty>}
			{pages.more && !pages.loading && <div class="pager"><button onClick={pages.loadMore}>Show more</button></div>}
		</section>
	);
}

const kinds = { added: 'Added', removed: 'Removed', changed: 'Changed' };

export function Diff({ before, after, emptyText }) {
	const changes = diffJson(before, after);
	if (!changes.length) return <Empty>{emptyText}</Empty>;
	return (
		<ul class="diff">
			{changes.map((change) => (
				<li key={pathText(change.path)}>
					<span><span class="hidden">{kinds[change.kind]}: </span><code>{visible(pathText(change.path))}</code></span>
					<span>
						{change.kind !== 'added' && <del class="gone"><code>{visible(writeJson(change.before, 1))}</code></del>}{' '}
						{change.kind !== 'removed' && <ins class="came"><code>{visible(writeJson(change.after, 1))}</code></ins>}
					</span>
				</li>
			))}
		</ul>
	);
}

function Slider({ id, label, value, last, onChange }) {
	return (
		<div class="slider">
			<label for={id}>{label}</label>
			<input id={id} type="range" min="0" max={last} value={value} aria-valuetext={`version ${value}`}
				onInput={(event) => onChange(Number(event.currentTarget.value))} />
			<Typed type="number" min="0" max={last} value={value} aria-label={`${label}, as a number`}
				onChosen={(text) => onChange(Math.min(last, Math.max(0, Math.trunc(Number(text) || 0))))} />
		</div>
	);
}

function useFold(name, reducer, version) {
	return useResource(reducer ? paths.state(name, { reducer, version }) : null);
}

function ReducerField({ value, onChange }) {
	const reducers = useResource(paths.reducers());
	const names = reducers.data ?? [];
	return (
		<div class="field">
			<label for="reducer">Reducer</label>
			<Typed id="reducer" list="reducers" value={value} spellcheck={false} autocomplete="off" placeholder="schema.function"
				onChosen={(text) => onChange(text.trim())} />
			<datalist id="reducers">{names.map((one) => <option key={one.reducer} value={one.reducer} />)}</datalist>
		</div>
	);
}

function States({ name, reducer, last, at, other, onAt, onOther }) {
	const lateAt = useDebounced(at, 120);
	const lateOther = useDebounced(other, 120);
	const state = useFold(name, reducer, lateAt);
	const before = useFold(name, reducer, lateOther);
	return (
		<>
			<section class="card" aria-label="Versions">
				<Slider id="at" label="State at version" value={at} last={last} onChange={onAt} />
				<Slider id="other" label="Compared with" value={other} last={last} onChange={onOther} />
			</section>
			<div class="grid2">
				<section class="card" aria-labelledby="state">
					<h2 id="state">State at version {integer(lateAt)}</h2>
					<Loaded resource={state}>{(body) => <Json value={body.state} label={`State at version ${lateAt}`} />}</Loaded>
				</section>
				<section class="card" aria-labelledby="diff">
					<h2 id="diff">From version {integer(lateOther)} to {integer(lateAt)}</h2>
					<Loaded resource={before}>
						{(body) => state.data !== undefined
							&& <Diff before={body.state} after={state.data.state} emptyText="The states are the same." />}
					</Loaded>
				</section>
			</div>
		</>
	);
}

function StateTab({ name, query, version }) {
	const last = Number(exact(version));
	const clamp = (text, otherwise) => (text === null ? otherwise : Math.min(last, Math.max(0, Number(text) || 0)));
	const [at, setAt] = useState(clamp(query.get('at'), last));
	const [other, setOther] = useState(clamp(query.get('with'), Math.max(0, last - 1)));
	const reducer = query.get('reducer') ?? 'es_merge';
	const place = useDebounced(`${at} ${other}`, 400);
	useEffect(() => { replaceQuery({ at, with: other }); }, [place]);
	return (
		<>
			<section class="card" aria-label="Reducer">
				<div class="filters"><ReducerField value={reducer} onChange={(value) => replaceQuery({ reducer: value })} /></div>
				<p class="muted">A function (state jsonb, event es_recorded_event) that the role may execute.</p>
			</section>
			{reducer ? <States name={name} reducer={reducer} last={last} at={at} other={other} onAt={setAt} onOther={setOther} />
				: <Empty>Name a reducer to see the state.</Empty>}
		</>
	);
}

export function Stream({ name, rest, query }) {
	const tab = rest[0] === 'state' ? 'state' : 'events';
	const newest = useResource(paths.stream(name, { backward: true, limit: 1 }), 3000);
	const version = newest.data?.[0]?.version;
	const [turn, setTurn] = useState(0);
	return (
		<Page title={visible(name)} about={version === undefined ? '' : `Version ${integer(version)}`}>
			<nav class="tabs" aria-label="Views of the stream">
				<a href={link('streams', name)} aria-current={tab === 'events' ? 'page' : undefined}>Events</a>
				<a href={link('streams', name, 'state')} aria-current={tab === 'state' ? 'page' : undefined}>State</a>
			</nav>
			{newest.error && <Fault error={newest.error} retry={newest.reload} />}
			{tab === 'events' && !newest.error && version !== undefined && (
				<EventPages key={`${query.get('version')} ${turn}`} name={name} query={query} newest={version} onReload={() => setTurn(turn + 1)} />
			)}
			{tab === 'state' && version !== undefined && <StateTab name={name} query={query} version={version} />}
		</Page>
	);
}
