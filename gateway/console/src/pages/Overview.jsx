// How the store is doing: figures and charts that move, what needs a human, who holds the horizon.
import { useSamples } from '../samples.js';
import { useResource } from '../hooks.js';
import { link } from '../route.js';
import { paths } from '../paths.js';
import { integer, rate, seconds } from '../format.js';
import { exact, toBigInt } from '../json.js';
import { Ago, Badge, Empty, Fault, Loaded, Page, Table } from '../components/basics.jsx';
import { Chart } from '../components/Chart.jsx';
import { StreamLink } from '../components/Events.jsx';
import { visible } from '../components/Json.jsx';

function Tile({ label, value, more, kind = '', href }) {
	return (
		<div class={`tile ${kind}`}>
			<div class="label">{href ? <a href={href}>{label}</a> : label}</div>
			<div class="value">{value}</div>
			{more && <div class="more">{more}</div>}
		</div>
	);
}

// The consumer that is furthest behind: a projection by name, or the subscriptions as a whole.
function greatestLag({ overview, projections }) {
	const all = [
		...projections.map((one) => ({ name: one.name, seconds: Number(exact(one.lag_seconds ?? 0)), href: link('projections', one.name) })),
		{ name: 'subscriptions', seconds: Number(exact(overview.subscriptions.lag_seconds)), href: '#/subscriptions' },
	];
	return all.reduce((most, one) => (one.seconds > most.seconds ? one : most));
}

function Tiles({ store }) {
	const { latest, samples } = store;
	const { overview } = latest;
	const lag = greatestLag(latest);
	const behind = toBigInt(overview.last_position) - toBigInt(overview.horizon);
	const failures = Number(exact(overview.failures));
	return (
		<div class="tiles">
			<Tile label="Events a second" value={rate(samples.at(-1)?.events)} more={`last position ${integer(overview.last_position)}`} />
			<Tile label="Greatest lag" value={seconds(lag.seconds).split(' ')[0]} href={lag.href} kind={lag.seconds > 60 ? 'warn' : ''}
				more={lag.seconds > 0 ? visible(lag.name) : 'nothing waits'} />
			<Tile label="Failures" value={integer(failures)} href="#/failures" kind={failures ? 'bad' : ''}
				more={failures ? 'to retry or discard' : 'none'} />
			<Tile label="Workers" value={integer(overview.workers)} more={overview.workers > 0 ? 'running' : 'none is needed, or none runs'} />
			<Tile label="Horizon" value={integer(overview.horizon)} kind={behind > 10_000n ? 'warn' : ''}
				more={behind > 0n ? `${integer(behind)} behind the end` : 'at the end of the log'} />
		</div>
	);
}

function Charts({ samples, latest }) {
	const names = latest.projections.slice()
		.sort((a, b) => Number(exact(b.lag_events ?? 0)) - Number(exact(a.lag_events ?? 0))).slice(0, 4).map((one) => one.name);
	const line = (pick) => samples.map((sample) => [sample.t, pick(sample) ?? null]);
	const counted = samples.some((sample) => sample.appends !== null);
	return (
		<div class="grid2">
			<section class="card" aria-label="Throughput">
				<Chart title={counted ? 'Appends and events a second' : 'Events a second'} format={rate} series={[
					...(counted ? [{ name: 'appends', points: line((sample) => sample.appends) }] : []),
					{ name: 'events', points: line((sample) => sample.events) },
				]} />
			</section>
			<section class="card" aria-label="Lag">
				<Chart title="Lag of projections, events" format={(n) => integer(Math.round(n))}
					series={names.length ? names.map((name) => ({ name, points: line((sample) => sample.lag.get(name)) }))
						: [{ name: 'none', points: [] }]} />
			</section>
		</div>
	);
}

function Remedy({ sql, by }) {
	if (!sql) return null;
	return <p><code>{sql}</code>{by && <span class="muted"> as {by}</span>}</p>;
}

function Health() {
	const health = useResource(paths.health(), 5000);
	return (
		<section class="card" aria-labelledby="health">
			<h2 id="health">What needs a human</h2>
			<Loaded resource={health} empty="Nothing. All is well." isEmpty={(rows) => rows.length === 0}>
				{(rows) => (
					<ul class="list">
						{rows.map((row, i) => (
							<li key={i} class={`note ${row.urgency <= 3 ? 'bad' : 'warn'}`}>
								<p><strong>{row.problem.replaceAll('_', ' ')}</strong> <bdi>{visible(row.object ?? '')}</bdi>{' '}
									{row.since && <span class="muted">since <Ago value={row.since} /></span>}</p>
								<p>{visible(row.message)}</p>
								<Remedy sql={row.remedy} by={row.remedy_by} />
							</li>
						))}
					</ul>
				)}
			</Loaded>
		</section>
	);
}

function Holders() {
	const horizon = useResource(paths.horizon(), 3000);
	return (
		<section class="card flush" aria-labelledby="holders">
			<h2 id="holders">Who holds the horizon</h2>
			<Loaded resource={horizon} empty="No open transaction holds it." isEmpty={(body) => body.holders.length === 0}>
				{(body) => (
					<Table label="Transactions that hold the horizon" rows={body.holders} rowKey={(row) => row.pid ?? row.gid} columns={[
						{ key: 'pid', label: 'Session', render: (row) => row.pid ?? <bdi>{visible(row.gid)}</bdi> },
						{ key: 'username', label: 'Role', render: (row) => <bdi>{visible(row.username ?? '–')}</bdi> },
						{ key: 'application_name', label: 'Program', render: (row) => <bdi>{visible(row.application_name || '–')}</bdi> },
						{ key: 'state', label: 'State', render: (row) => <Badge kind={/idle|prepared/.test(row.state) ? 'warn' : ''}>{row.state}</Badge> },
						{ key: 'since', label: 'Since', render: (row) => <Ago value={row.since} /> },
						{ key: 'streams', label: 'Streams', align: 'wide', render: (row) => (row.streams ?? []).slice(0, 3)
							.map((name) => <div key={name}><StreamLink name={name} /></div>) },
						{ key: 'remedy', label: 'What ends it', align: 'wide', render: (row) => <code>{row.remedy}</code> },
					]} />
				)}
			</Loaded>
		</section>
	);
}

function Categories({ stats }) {
	if (!stats?.length) return null;
	return (
		<section class="card flush" aria-labelledby="counters">
			<h2 id="counters">Appends by category</h2>
			<Table label="Appends by category" rows={stats} rowKey={(row) => row.category ?? ''} columns={[
				{ key: 'category', label: 'Category', align: 'wide', render: (row) => (row.category === null ? <span class="muted">all others</span>
					: <a href={`#/streams?category=${encodeURIComponent(row.category)}`}><bdi>{visible(row.category)}</bdi></a>) },
				{ key: 'appends', label: 'Appends', align: 'right', render: (row) => integer(row.appends) },
				{ key: 'events', label: 'Events', align: 'right', render: (row) => integer(row.events) },
				{ key: 'conflicts', label: 'Conflicts', align: 'right', render: (row) => integer(row.conflicts) },
				{ key: 'retries', label: 'Retries', align: 'right', render: (row) => integer(row.retries) },
				{ key: 'duplicates', label: 'Duplicates', align: 'right', render: (row) => integer(row.duplicates) },
				{ key: 'lock_waits', label: 'Lock waits', align: 'right', render: (row) => integer(row.lock_waits) },
			]} />
		</section>
	);
}

export function Overview() {
	const store = useSamples();
	return (
		<Page title="Overview" about="Figures of now and of the last five minutes, taken every two seconds.">
			<Fault error={store.error} />
			{store.latest && (
				<>
					<Tiles store={store} />
					<Charts samples={store.samples} latest={store.latest} />
					<Health />
					<Holders />
					<Categories stats={store.latest.stats?.categories} />
				</>
			)}
			{!store.latest && !store.error && <Empty>Loading…</Empty>}
			<p class="muted"><a href={link('log')}>The log, live</a></p>
		</Page>
	);
}
