// Subscriptions and their partitions: who consumes, how far; seek.
import { useState } from 'preact/hooks';
import { request } from '../api.js';
import { useAction, useResource } from '../hooks.js';
import { link } from '../route.js';
import { paths } from '../paths.js';
import { integer, seconds } from '../format.js';
import { Confirm, Loaded, Page, Table } from '../components/basics.jsx';
import { visible } from '../components/Json.jsx';
import { Lag } from './Projections.jsx';

const failuresOf = (name) => `#/failures?subscription=${encodeURIComponent(name)}`;

export function Subscriptions() {
	const subscriptions = useResource(paths.subscriptions(), 2000);
	return (
		<Page title="Subscriptions" about="What consumers outside the database get, and how far they are.">
			<section class="card flush" aria-label="Subscriptions">
				<Loaded resource={subscriptions} empty="There is no subscription that you may see." isEmpty={(body) => body.length === 0}>
					{(body) => (
						<Table label="Subscriptions" rows={body} rowKey={(row) => row.subscription} columns={[
							{ key: 'subscription', label: 'Name', align: 'wide', render: (row) => (
								<a href={link('subscriptions', row.subscription)}><bdi>{visible(row.subscription)}</bdi></a>) },
							{ key: 'partitions', label: 'Partitions', align: 'right', render: (row) => integer(row.partitions) },
							{ key: 'position', label: 'Checkpoint', align: 'right', render: (row) => integer(row.position) },
							{ key: 'lag_events', label: 'Lag, events', align: 'right', render: (row) => <Lag row={row} /> },
							{ key: 'lag_seconds', label: 'Lag, time', align: 'right', render: (row) => seconds(row.lag_seconds) },
							{ key: 'in_flight', label: 'In flight', align: 'right', render: (row) => integer(row.in_flight) },
							{ key: 'parked', label: 'Parked', align: 'right', render: (row) => (Number(row.parked)
								? <a href={failuresOf(row.subscription)}>{integer(row.parked)}</a> : '0') },
						]} />
					)}
				</Loaded>
			</section>
		</Page>
	);
}

function Partitions({ rows }) {
	return (
		<section class="card flush" aria-labelledby="partitions">
			<h2 id="partitions">Partitions</h2>
			<Table label="Partitions" rows={rows} rowKey={(row) => row.partition} columns={[
				{ key: 'partition', label: 'Partition' },
				{ key: 'consumer', label: 'Consumer', align: 'wide', render: (row) => (row.consumer ? <bdi>{visible(row.consumer)}</bdi>
					: <span class="muted">{row.lease_left ? 'without a name' : 'none'}</span>) },
				{ key: 'lease_left', label: 'Lease left', render: (row) => seconds(row.lease_left) },
				{ key: 'position', label: 'Checkpoint', align: 'right', render: (row) => integer(row.position) },
				{ key: 'lag_events', label: 'Lag, events', align: 'right', render: (row) => <Lag row={row} /> },
				{ key: 'lag_seconds', label: 'Lag, time', align: 'right', render: (row) => seconds(row.lag_seconds) },
				{ key: 'in_flight', label: 'In flight', align: 'right', render: (row) => integer(row.in_flight) },
				{ key: 'parked', label: 'Parked', align: 'right', render: (row) => (Number(row.parked)
					? <a href={failuresOf(row.subscription)}>{integer(row.parked)}</a> : '0') },
			]} />
		</section>
	);
}

function Seek({ name, reload }) {
	const [position, setPosition] = useState('');
	const [asking, setAsking] = useState(false);
	const [run, busy] = useAction();
	const seek = async () => {
		await run(() => request('POST', paths.subscription(name, 'seek'), {
			body: { position: position === '' ? null : `\0${position}` },
		}), 'Moved.');
		reload();
	};
	return (
		<section class="card" aria-labelledby="seek">
			<h2 id="seek">Seek</h2>
			<form class="filters" onSubmit={(event) => { event.preventDefault(); setAsking(true); }}>
				<div class="field">
					<label for="position">Position; empty: the horizon</label>
					<input id="position" inputmode="numeric" pattern="\d{0,19}" value={position} autocomplete="off"
						onInput={(event) => setPosition(event.currentTarget.value.trim())} />
				</div>
				<button disabled={busy}>Seek…</button>
			</form>
			{asking && (
				<Confirm title={`Move ${name}?`} action="Move" danger onClose={() => setAsking(false)} onConfirm={seek}>
					<p>Every partition goes on after {position === '' ? 'the horizon' : `position ${integer(`\0${position}`)}`}.
						What is in flight becomes void. A move backward delivers events again.</p>
				</Confirm>
			)}
		</section>
	);
}

export function Subscription({ name }) {
	const subscription = useResource(paths.subscription(name), 1000);
	return (
		<Page title={visible(name)} about="Subscription">
			<Loaded resource={subscription}>
				{(rows) => (
					<>
						<Partitions rows={rows} />
						<Seek name={name} reload={subscription.reload} />
					</>
				)}
			</Loaded>
		</Page>
	);
}
