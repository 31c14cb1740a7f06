// What was removed from the log, by whom and why; the rules of retention.
import { useState } from 'preact/hooks';
import { useResource } from '../hooks.js';
import { paths } from '../paths.js';
import { integer, seconds } from '../format.js';
import { exact } from '../json.js';
import { Ago, Badge, Loaded, Page, Table, Time } from '../components/basics.jsx';
import { StreamLink } from '../components/Events.jsx';
import { JsonLine, visible } from '../components/Json.jsx';

const pageSize = 50;

function Rules() {
	const rules = useResource(paths.retention(), 5000);
	return (
		<section class="card flush" aria-labelledby="rules">
			<h2 id="rules">Rules of retention</h2>
			<Loaded resource={rules} empty="There is no rule." isEmpty={(body) => body.length === 0}>
				{(body) => (
					<Table label="Rules of retention" rows={body} rowKey={(row) => row.category} columns={[
						{ key: 'category', label: 'Category', align: 'wide', render: (row) => <bdi>{visible(row.category)}</bdi> },
						{ key: 'max_age', label: 'Kept for', render: (row) => seconds(row.max_age) },
						{ key: 'max_count', label: 'Kept of a stream', align: 'right', render: (row) => integer(row.max_count) },
						{ key: 'removed', label: 'Removed', align: 'right', render: (row) => integer(row.removed) },
						{ key: 'held_by', label: 'Held by', render: (row) => (row.held_by ? <Badge kind="warn">{visible(row.held_by)}</Badge> : '–') },
						{ key: 'last_error', label: 'Error', render: (row) => (row.last_error ? <Badge kind="bad">{visible(row.last_error)}</Badge> : '–') },
						{ key: 'ran_at', label: 'Ran', render: (row) => <Ago value={row.ran_at} /> },
						{ key: 'next_run', label: 'Runs next', render: (row) => <Time value={row.next_run} /> },
					]} />
				)}
			</Loaded>
		</section>
	);
}

export function Removals() {
	const [limit, setLimit] = useState(pageSize);
	const removals = useResource(paths.removals({ limit }), 10_000);
	return (
		<Page title="Removals" about="What was deleted, truncated, compacted or archived, the newest first.">
			<Rules />
			<section class="card flush" aria-labelledby="removals">
				<h2 id="removals">Removals</h2>
				<Loaded resource={removals} empty="Nothing was removed." isEmpty={(body) => body.length === 0}>
					{(body) => (
						<>
							<Table label="Removals" rows={body} rowKey={(row) => exact(row.id)} columns={[
								{ key: 'id', label: 'Id', render: (row) => integer(row.id) },
								{ key: 'action', label: 'Action', render: (row) => <Badge kind={row.action === 'tombstone' ? 'bad' : ''}>{row.action}</Badge> },
								{ key: 'stream', label: 'Stream', align: 'wide', render: (row) => <StreamLink name={row.stream} /> },
								{ key: 'removed', label: 'Events', align: 'right', render: (row) => integer(row.removed) },
								{ key: 'removed_by', label: 'By', render: (row) => <bdi>{visible(row.removed_by)}</bdi> },
								{ key: 'removed_at', label: 'When', align: 'nowrap', render: (row) => <Time value={row.removed_at} /> },
								{ key: 'metadata', label: 'Why', align: 'wide', render: (row) => <JsonLine value={row.metadata} /> },
							]} />
							{removals.more
								&& <div class="pager"><button onClick={() => setLimit(limit + pageSize)}>Show more</button></div>}
						</>
					)}
				</Loaded>
			</section>
		</Page>
	);
}
