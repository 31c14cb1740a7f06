// Event types: what is defined, and events as they are.
import { useResource } from '../hooks.js';
import { link } from '../route.js';
import { paths } from '../paths.js';
import { integer } from '../format.js';
import { Ago, Badge, Fact, Facts, Loaded, Page, Table } from '../components/basics.jsx';
import { EventList } from '../components/Events.jsx';
import { Json, visible } from '../components/Json.jsx';

const typeLink = (row) => link('types', row.type) + (row.category ? `?category=${encodeURIComponent(row.category)}` : '');

export function Types() {
	const types = useResource(paths.types(), 10_000);
	return (
		<Page title="Event types" about="Types that are defined, and types of the last 10 000 events.">
			<section class="card flush" aria-label="Event types">
				<Loaded resource={types} empty="There is no event, and no type is defined." isEmpty={(body) => body.length === 0}>
					{(body) => (
						<Table label="Event types" rows={body} rowKey={(row) => `${row.type} ${row.category ?? ''}`} columns={[
							{ key: 'type', label: 'Type', align: 'wide', render: (row) => <a href={typeLink(row)}><bdi>{visible(row.type)}</bdi></a> },
							{ key: 'defined', label: 'Definition', render: (row) => (row.defined
								? <Badge kind="good">schema version {integer(row.schema_version)}</Badge> : <span class="muted">none</span>) },
							{ key: 'category', label: 'Category', align: 'wide', render: (row) => (row.category ? <bdi>{visible(row.category)}</bdi>
								: <span class="muted">all</span>) },
							{ key: 'description', label: 'Meaning', align: 'wide', render: (row) => visible(row.description ?? '–') },
							{ key: 'recent_events', label: 'Recent', align: 'right', render: (row) => integer(row.recent_events) },
							{ key: 'last_recorded_at', label: 'Last', align: 'nowrap', render: (row) => <Ago value={row.last_recorded_at} /> },
						]} />
					)}
				</Loaded>
			</section>
		</Page>
	);
}

function Definition({ one }) {
	return (
		<section class="card" aria-label={`Definition for ${one.category ?? 'all categories'}`}>
			<h2>{one.category ? <>In the category <bdi>{visible(one.category)}</bdi></> : 'In all categories'}</h2>
			{one.description && <p>{visible(one.description)}</p>}
			<Facts>
				<Fact label="Schema version">{integer(one.schema_version)}</Fact>
				<Fact label="Required attributes">{(one.required ?? []).join(', ') || 'none'}</Fact>
				<Fact label="Composite key">{(one.composite_key ?? []).join(', ') || 'none'}</Fact>
				<Fact label="Personal attributes">{Object.keys(one.personal ?? {}).join(', ') || 'none'}</Fact>
			</Facts>
			{one.attributes && <Json value={one.attributes} label="Kinds of attributes" />}
			{one.upcasters && Object.keys(one.upcasters).length > 0 && (
				<ul class="list" aria-label="Upcasters">
					{Object.entries(one.upcasters).map(([from, upcaster]) => (
						<li key={from}><Badge>from version {from}</Badge> <code>{visible(upcaster)}</code></li>
					))}
				</ul>
			)}
		</section>
	);
}

export function Type({ name, query }) {
	const category = query.get('category') ?? '';
	const type = useResource(paths.type(name, { category }));
	const samples = useResource(paths.samples(name), 10_000);
	const undefinedType = type.error?.status === 404;
	return (
		<Page title={visible(name)} about="Event type">
			{undefinedType ? <section class="card"><p>The type is not defined. Its events are stored unchecked, unless
				eventstore.strict_types is on.</p></section>
				: <Loaded resource={type}>{(body) => <Definition one={body} />}</Loaded>}
			<section class="card flush" aria-labelledby="samples">
				<div class="cardhead">
					<h2 id="samples">Newest events of the type</h2>
					<a href={`#/log?types=${encodeURIComponent(name)}`}>Follow them</a>
				</div>
				<Loaded resource={samples} empty="There is no event of the type among the newest." isEmpty={(body) => body.length === 0}>
					{(body) => <EventList events={body} />}
				</Loaded>
			</section>
		</Page>
	);
}
