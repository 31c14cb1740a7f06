// Failures: read, retry, discard; one or many.
import { useEffect, useState } from 'preact/hooks';
import { request } from '../api.js';
import { useAction, useResource } from '../hooks.js';
import { link } from '../route.js';
import { paths } from '../paths.js';
import { integer } from '../format.js';
import { exact } from '../json.js';
import { Ago, Badge, Confirm, Fact, Facts, Fault, Filters, Loaded, Page, Table, Time, valuesOf } from '../components/basics.jsx';
import { StreamLink } from '../components/Events.jsx';
import { Json, visible } from '../components/Json.jsx';

const pageSize = 50;
const labels = {
	projection: 'Projection', subscription: 'Subscription', stream: 'Stream', type: 'Type', topic: 'Topic', group_id: 'Group',
};

function Source({ row }) {
	if (row.projection) return <a href={link('projections', row.projection)}><bdi>{visible(row.projection)}</bdi></a>;
	if (row.subscription) return <a href={link('subscriptions', row.subscription)}><bdi>{visible(row.subscription)}</bdi></a>;
	return <bdi>{visible(`${row.topic} / ${row.group_id}`)}</bdi>;
}

const kindOf = (row) => (row.projection ? 'projection' : row.subscription ? 'subscription' : 'message');

// A stream's events are retried together, so that the answer counts what was handled, not what was chosen.
async function settle(ids, action) {
	const { body } = await request('POST', paths.allFailures(action), { body: { ids } });
	if (action === 'discard') return `${integer(body.discarded)} discarded.`;
	if (!Number(exact(body.handled))) throw new Error('Nothing was handled: it failed again.');
	return `${integer(body.handled)} handled.`;
}

function Bulk({ chosen, onDone }) {
	const [asking, setAsking] = useState(false);
	const [run, busy] = useAction();
	const act = async (action) => {
		await run(() => settle(chosen, action), (text) => text);
		onDone();
	};
	return (
		<div class="pager" role="group" aria-label="Chosen failures">
			<span role="status">{chosen.length} chosen</span>
			<button disabled={busy || !chosen.length} onClick={() => act('retry')}>Retry</button>
			<button class="danger" disabled={busy || !chosen.length} onClick={() => setAsking(true)}>Discard…</button>
			{asking && (
				<Confirm title={`Discard ${chosen.length} failures?`} action="Discard" danger onClose={() => setAsking(false)}
					onConfirm={() => act('discard')}>
					<p>They are not handled any more. Events that only waited behind them go on.</p>
				</Confirm>
			)}
		</div>
	);
}

function FailureTable({ rows, chosen, setChosen }) {
	const all = rows.length > 0 && rows.every((row) => chosen.has(exact(row.id)));
	const toggle = (id) => {
		const next = new Set(chosen);
		if (!next.delete(id)) next.add(id);
		setChosen(next);
	};
	return (
		<Table label="Failures" rows={rows} rowKey={(row) => exact(row.id)} columns={[
			{ key: 'choose', text: 'Choose', label: <input type="checkbox" aria-label="Choose all" checked={all}
				onChange={() => setChosen(all ? new Set() : new Set(rows.map((row) => exact(row.id))))} />,
			render: (row) => <input type="checkbox" aria-label={`Choose failure ${exact(row.id)}`} checked={chosen.has(exact(row.id))}
				onChange={() => toggle(exact(row.id))} /> },
			{ key: 'id', label: 'Id', render: (row) => <a href={link('failures', exact(row.id))}>{integer(row.id)}</a> },
			{ key: 'source', label: 'Of', align: 'wide', render: (row) => <><Source row={row} /> <Badge>{kindOf(row)}</Badge></> },
			{ key: 'stream', label: 'Stream', align: 'wide', render: (row) => (row.stream ? <StreamLink name={row.stream} version={row.version} />
				: <span class="muted">{visible(row.message_id ?? '–')}</span>) },
			{ key: 'type', label: 'Type', align: 'wide', render: (row) => row.type && <Badge kind="type">{visible(row.type)}</Badge> },
			{ key: 'message', label: 'Error', align: 'wide', render: (row) => (row.message ? visible(row.message)
				: <span class="muted">waits behind an earlier one</span>) },
			{ key: 'attempts', label: 'Attempts', align: 'right', render: (row) => integer(row.attempts) },
			{ key: 'last_failed_at', label: 'Last', align: 'nowrap', render: (row) => <Ago value={row.last_failed_at} /> },
		]} />
	);
}

export function Failures({ query }) {
	const filters = valuesOf(labels, query);
	const [limit, setLimit] = useState(pageSize);
	const [chosen, setChosen] = useState(new Set());
	const failures = useResource(paths.failures({ ...filters, limit }), 3000);
	const rows = failures.data ?? [];
	useEffect(() => {
		const there = new Set(rows.map((row) => exact(row.id)));
		if ([...chosen].some((id) => !there.has(id))) setChosen(new Set([...chosen].filter((id) => there.has(id))));
	}, [failures.data]);
	return (
		<Page title="Failures" about="Events and messages that could not be handled, the newest first.">
			<Filters labels={labels} values={filters} />
			<section class="card flush" aria-label="Failures">
				<Loaded resource={failures} empty="Nothing has failed." isEmpty={(body) => body.length === 0}>
					{() => (
						<>
							<Bulk chosen={[...chosen]} onDone={() => { setChosen(new Set()); failures.reload(); }} />
							<FailureTable rows={rows} chosen={chosen} setChosen={setChosen} />
							{failures.more
								&& <div class="pager"><button onClick={() => setLimit(limit + pageSize)}>Show more</button></div>}
						</>
					)}
				</Loaded>
			</section>
		</Page>
	);
}

function Parts({ row }) {
	return (
		<>
			<section class="note bad" aria-label="Error">
				<p><strong>{visible(row.message ?? 'It waits behind an earlier failure of its stream.')}</strong>
					{row.sqlstate && <span class="muted"> SQLSTATE {row.sqlstate}</span>}</p>
				{row.detail && <p>{visible(row.detail)}</p>}
				{row.context && <details><summary>Where it was raised</summary><pre class="text">{visible(row.context)}</pre></details>}
			</section>
			<section class="card" aria-label="Facts">
				<Facts>
					<Fact label="Of"><Source row={row} /> <Badge>{kindOf(row)}</Badge></Fact>
					{row.stream && <Fact label="Stream"><StreamLink name={row.stream} version={row.version} /></Fact>}
					{row.position && <Fact label="Position">{integer(row.position)}</Fact>}
					{row.type && <Fact label="Type"><Badge kind="type">{visible(row.type)}</Badge></Fact>}
					{row.message_id && <Fact label="Message"><code>{visible(row.message_id)}</code></Fact>}
					{row.handler && <Fact label="Handler"><code>{row.handler}</code></Fact>}
					<Fact label="Attempts">{integer(row.attempts)}</Fact>
					<Fact label="First failed"><Time value={row.first_failed_at} /></Fact>
					<Fact label="Last failed"><Time value={row.last_failed_at} /></Fact>
					{row.retry_at && <Fact label="Tried again"><Time value={row.retry_at} /></Fact>}
				</Facts>
			</section>
			{row.payload !== null && row.payload !== undefined && (
				<section class="card" aria-labelledby="payload">
					<h2 id="payload">Payload</h2>
					<pre class="text" tabIndex="0" role="group" aria-label="Payload">{visible(row.payload)}</pre>
				</section>
			)}
			{row.metadata && (
				<section class="card" aria-labelledby="metadata"><h2 id="metadata">Metadata</h2><Json value={row.metadata} label="Metadata" /></section>
			)}
		</>
	);
}

function EventOf({ id }) {
	const event = useResource(id ? paths.event(id) : null);
	if (!event.data) return <Fault error={event.error?.status === 404 ? null : event.error} />;
	return (
		<section class="card" aria-labelledby="data">
			<h2 id="data">Data of the event</h2>
			<Json value={event.data.data} label="Data of the event" />
		</section>
	);
}

export function Failure({ name: id }) {
	const failure = useResource(paths.failure(id));
	const [asking, setAsking] = useState(false);
	const [run, busy] = useAction();
	const leave = () => { location.hash = '#/failures'; };
	const retry = async () => {
		const done = await run(() => request('POST', paths.failure(id, 'retry')), ({ body }) => `${integer(body.handled)} handled.`);
		if (done) leave();
		else failure.reload();
	};
	const discard = async () => {
		const done = await run(() => request('DELETE', paths.failure(id)), 'Discarded.');
		if (done) leave();
	};
	return (
		<Page title={`Failure ${integer(`\0${id}`)}`} actions={failure.data && (
			<>
				<button class="primary" disabled={busy} onClick={retry}>Retry</button>
				<button class="danger" disabled={busy} onClick={() => setAsking(true)}>Discard…</button>
			</>
		)}>
			<Loaded resource={failure}>{(row) => <><Parts row={row} /><EventOf id={row.event_id} /></>}</Loaded>
			{asking && (
				<Confirm title="Discard this failure?" action="Discard" danger onClose={() => setAsking(false)} onConfirm={discard}>
					<p>It is not handled any more. Events that only waited behind it go on.</p>
				</Confirm>
			)}
		</Page>
	);
}
