// A list of events; each opens to its data, metadata, tags and ids.
import { link } from '../route.js';
import { integer } from '../format.js';
import { exact } from '../json.js';
import { Badge, Fact, Facts, Time } from './basics.jsx';
import { Json, JsonLine, visible } from './Json.jsx';

export function StreamLink({ name, version }) {
	return (
		<a href={link('streams', name) + (version ? `?version=${exact(version)}` : '')}><bdi>{visible(name)}</bdi></a>
	);
}

export function EventBody({ event, withStream = true }) {
	const hasMetadata = event.metadata && Object.keys(event.metadata).length > 0;
	return (
		<div class="body">
			<Facts>
				{withStream && <Fact label="Stream"><StreamLink name={event.stream} version={event.version} /></Fact>}
				<Fact label="Version">{integer(event.version)}</Fact>
				<Fact label="Position">{integer(event.position)}</Fact>
				<Fact label="Recorded"><Time value={event.recorded_at} /></Fact>
				{event.occurred_at && <Fact label="Occurred"><Time value={event.occurred_at} /></Fact>}
				<Fact label="Id"><code>{event.id}</code></Fact>
			</Facts>
			{event.tags?.length > 0 && (
				<p>Tags: {event.tags.map((tag) => <span key={tag}><Badge>{visible(tag)}</Badge> </span>)}</p>
			)}
			<div>
				<h3>Data</h3>
				<Json value={event.data} label={`Data of the event at position ${exact(event.position)}`} />
			</div>
			{hasMetadata && (
				<div>
					<h3>Metadata</h3>
					<Json value={event.metadata} label={`Metadata of the event at position ${exact(event.position)}`} />
				</div>
			)}
			{event.body && <p class="muted">It also has a body of {integer(Math.floor(event.body.length * 3 / 4))} bytes.</p>}
		</div>
	);
}

export function EventItem({ event, numberedBy, withStream, fresh, open }) {
	return (
		<li class={fresh ? 'fresh' : undefined}>
			<details open={open}>
				<summary>
					<span class="at" title={numberedBy === 'version' ? 'Version' : 'Position'}>{integer(event[numberedBy])}</span>
					<span><Badge kind="type">{visible(event.type)}</Badge></span>
					{withStream && <bdi>{visible(event.stream)}</bdi>}
					<JsonLine value={event.data} />
					<Time value={event.recorded_at} />
				</summary>
				<EventBody event={event} withStream={withStream} />
			</details>
		</li>
	);
}

export function EventList({ events, numberedBy = 'position', withStream = true, freshAfter, open }) {
	return (
		<ul class={`events ${withStream ? 'withstream' : ''}`}>
			{events.map((event) => (
				<EventItem key={exact(event.position)} event={event} numberedBy={numberedBy} withStream={withStream}
					fresh={freshAfter !== undefined && Number(exact(event.position)) > freshAfter}
					open={open !== undefined && exact(event[numberedBy]) === open} />
			))}
		</ul>
	);
}
