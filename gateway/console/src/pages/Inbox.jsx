// Messages that were received from outside, the newest first.
import { useState } from 'preact/hooks';
import { useResource } from '../hooks.js';
import { paths } from '../paths.js';
import { integer } from '../format.js';
import { exact } from '../json.js';
import { Badge, Fact, Facts, Filters, Loaded, Page, Time, valuesOf } from '../components/basics.jsx';
import { Json, visible } from '../components/Json.jsx';

const pageSize = 50;
const labels = { topic: 'Topic', group_id: 'Group', entity_id: 'Entity', event_type: 'Type' };

function Message({ row }) {
	return (
		<li>
			<details>
				<summary>
					<span class="at">{integer(row.id)}</span>
					<span><Badge kind="type">{visible(row.event_type ?? 'message')}</Badge></span>
					<bdi>{visible(`${row.topic} / ${row.group_id}`)}</bdi>
					<code class="line">{visible((row.payload ?? '').slice(0, 160))}</code>
					<Time value={row.received_at} />
				</summary>
				<div class="body">
					<Facts>
						<Fact label="Entity">{row.entity_id && visible(row.entity_id)}</Fact>
						<Fact label="Happened"><Time value={row.event_time} /></Fact>
						<Fact label="Message id">{row.message_id && visible(row.message_id)}</Fact>
						<Fact label="Format">{row.event_version}</Fact>
						<Fact label="Event at position">{row.position && integer(row.position)}</Fact>
						<Fact label="Checksum"><code>{row.checksum}</code></Fact>
					</Facts>
					<div><h3>Payload</h3>
						<pre class="text" tabIndex="0" role="group" aria-label={`Payload of message ${exact(row.id)}`}>{visible(row.payload ?? '')}</pre></div>
					<div><h3>Metadata</h3><Json value={row.metadata} label={`Metadata of message ${exact(row.id)}`} /></div>
				</div>
			</details>
		</li>
	);
}

export function Inbox({ query }) {
	const filters = valuesOf(labels, query);
	const [limit, setLimit] = useState(pageSize);
	const inbox = useResource(paths.inbox({ ...filters, limit }), 5000);
	return (
		<Page title="Inbox" about="Messages from outside, each of which was handled once.">
			<Filters labels={labels} values={filters} />
			<section class="card flush" aria-label="Messages">
				<Loaded resource={inbox} empty="No message was received." isEmpty={(body) => body.length === 0}>
					{(body) => (
						<>
							<ul class="events withstream">{body.map((row) => <Message key={exact(row.id)} row={row} />)}</ul>
							{inbox.more
								&& <div class="pager"><button onClick={() => setLimit(limit + pageSize)}>Show more</button></div>}
						</>
					)}
				</Loaded>
			</section>
		</Page>
	);
}
