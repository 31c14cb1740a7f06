// Projections: how far each is; pause, resume, rebuild.
import { useState } from 'preact/hooks';
import { request } from '../api.js';
import { useSamples } from '../samples.js';
import { useAction, useResource } from '../hooks.js';
import { link } from '../route.js';
import { paths } from '../paths.js';
import { integer, rate, seconds } from '../format.js';
import { exact } from '../json.js';
import { Ago, Badge, Confirm, Fact, Facts, Loaded, Page, Progress, Table, Time } from '../components/basics.jsx';
import { Chart } from '../components/Chart.jsx';
import { StreamLink } from '../components/Events.jsx';
import { visible } from '../components/Json.jsx';

const kinds = { running: 'good', retrying: 'warn', failed: 'bad', paused: '' };

export function Lag({ row }) {
	return <>{row.lag_is_estimate && '≈ '}{integer(row.lag_events)}</>;
}

export function Projections() {
	const projections = useResource(paths.projections(), 2000);
	return (
		<Page title="Projections" about="Read models that are kept up to date from the log.">
			<section class="card flush" aria-label="Projections">
				<Loaded resource={projections} empty="There is no projection that you may see." isEmpty={(body) => body.length === 0}>
					{(body) => (
						<Table label="Projections" rows={body} rowKey={(row) => row.name} columns={[
							{ key: 'name', label: 'Name', align: 'wide', render: (row) => <a href={link('projections', row.name)}><bdi>{visible(row.name)}</bdi></a> },
							{ key: 'state', label: 'State', render: (row) => <Badge kind={kinds[row.state]}>{row.state}</Badge> },
							{ key: 'mode', label: 'Mode' },
							{ key: 'position', label: 'Position', align: 'right', render: (row) => integer(row.position) },
							{ key: 'lag_events', label: 'Lag, events', align: 'right', render: (row) => <Lag row={row} /> },
							{ key: 'lag_seconds', label: 'Lag, time', align: 'right', render: (row) => seconds(row.lag_seconds) },
							{ key: 'events_per_second', label: 'Events/s', align: 'right', render: (row) => rate(Number(exact(row.events_per_second ?? 0))) },
							{ key: 'parked', label: 'Parked', align: 'right', render: (row) => (Number(row.parked)
								? <a href={`#/failures?projection=${encodeURIComponent(row.name)}`}>{integer(row.parked)}</a> : '0') },
							{ key: 'rebuild_percent', label: 'Rebuild', render: (row) => row.rebuild_percent !== null
								&& <Progress percent={exact(row.rebuild_percent)} label={`Rebuild of ${row.name}`} /> },
						]} />
					)}
				</Loaded>
			</section>
		</Page>
	);
}

function Trouble({ row }) {
	if (!row.last_error) return null;
	return (
		<section class={`note ${row.state === 'failed' ? 'bad' : 'warn'}`} aria-label="Last error">
			<p><strong>{visible(row.last_error)}</strong> {row.sqlstate && <span class="muted">SQLSTATE {row.sqlstate}</span>}</p>
			{row.error_detail && <p>{visible(row.error_detail)}</p>}
			{row.failed_position !== null && (
				<p>At position {integer(row.failed_position)}: <Badge kind="type">{visible(row.failed_type ?? '')}</Badge>{' '}
					in <StreamLink name={row.failed_stream ?? ''} version={row.failed_version} /></p>
			)}
			<p class="muted">{integer(row.attempts)} attempts since <Ago value={row.failing_since} />; the next at <Time value={row.next_attempt} /></p>
			{row.error_context && <details><summary>Where it was raised</summary><pre class="text">{visible(row.error_context)}</pre></details>}
		</section>
	);
}

function Rebuild({ row }) {
	if (row.rebuild_percent === null) return null;
	const percent = Number(exact(row.rebuild_percent));
	return (
		<section class="card" aria-label="Rebuild">
			<div class="cardhead">
				<h2>Rebuild</h2>
				<p class="number">{percent.toFixed(1)} %{row.rebuild_time_left && ` · about ${seconds(row.rebuild_time_left)} left`}</p>
			</div>
			<Progress percent={percent} label={`Rebuild of ${row.name}`} />
		</section>
	);
}

function LagChart({ name }) {
	const { samples } = useSamples();
	const points = samples.map((sample) => [sample.t, sample.lag.get(name) ?? null]);
	return (
		<section class="card" aria-label="Lag">
			<Chart title="Lag, events" series={[{ name: 'lag', points }]} format={(n) => integer(Math.round(n))} />
		</section>
	);
}

function Actions({ row, reload }) {
	const [asking, setAsking] = useState(false);
	const [run, busy] = useAction();
	const act = async (action, text) => {
		await run(() => request('POST', paths.projection(row.name, action)), text);
		reload();
	};
	const rebuilding = row.rebuild_percent !== null;
	const mayResume = row.state !== 'running';
	return (
		<>
			{row.state !== 'paused' && <button disabled={busy} onClick={() => act('pause', 'Paused.')}>Pause</button>}
			{mayResume && <button disabled={busy} onClick={() => act('resume', 'Resumed.')}>
				{row.state === 'paused' ? 'Resume' : 'Try now'}</button>}
			<button disabled={busy || rebuilding} onClick={() => setAsking(true)}>Rebuild…</button>
			{asking && (
				<Confirm title={`Rebuild ${row.name}?`} action="Rebuild" onClose={() => setAsking(false)}
					onConfirm={() => act('rebuild', (result) => (result.status === 202 ? 'The rebuild has begun.' : 'Rebuilt.'))}>
					<p>The read model is filled again from the log. Readers see the old rows until it is done.</p>
				</Confirm>
			)}
		</>
	);
}

export function Projection({ name }) {
	const projection = useResource(paths.projection(name), 1000);
	const row = projection.data;
	return (
		<Page title={visible(name)} about="Projection" actions={row && <Actions row={row} reload={projection.reload} />}>
			<Loaded resource={projection}>
				{() => (
					<>
						<Trouble row={row} />
						<Rebuild row={row} />
						<section class="card" aria-label="Status">
							<Facts>
								<Fact label="State"><Badge kind={kinds[row.state]}>{row.state}</Badge></Fact>
								<Fact label="Mode">{row.mode}</Fact>
								<Fact label="Position">{integer(row.position)}</Fact>
								<Fact label="Horizon">{integer(row.horizon)}</Fact>
								<Fact label="Lag"><Lag row={row} /> events, {seconds(row.lag_seconds)}</Fact>
								<Fact label="Handled">{integer(row.handled)}</Fact>
								<Fact label="Events a second">{rate(Number(exact(row.events_per_second ?? 0)))}</Fact>
								<Fact label="Parked">{Number(row.parked)
									? <a href={`#/failures?projection=${encodeURIComponent(name)}`}>{integer(row.parked)}</a> : '0'}</Fact>
							</Facts>
						</section>
						<LagChart name={name} />
					</>
				)}
			</Loaded>
		</Page>
	);
}
