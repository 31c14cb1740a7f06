// Categories and streams: search, newest first.
import { useEffect, useState } from 'preact/hooks';
import { useDebounced, useResource } from '../hooks.js';
import { replaceQuery } from '../route.js';
import { paths } from '../paths.js';
import { integer } from '../format.js';
import { Ago, Badge, Loaded, Page, Table } from '../components/basics.jsx';
import { StreamLink } from '../components/Events.jsx';
import { visible } from '../components/Json.jsx';

const pageSize = 50;

function Categories({ chosen }) {
	const categories = useResource(paths.categories({ limit: 100 }));
	return (
		<section class="card" aria-labelledby="categories">
			<h2 id="categories">Categories</h2>
			<Loaded resource={categories} empty="The log has no events yet." isEmpty={(body) => body.length === 0}>
				{(body) => (
					<ul class="chips">
						{[null, ...body.map((one) => one.category)].map((name) => (
							<li key={name ?? ''}>
								<a class="chip" aria-current={(chosen ?? null) === name ? 'true' : undefined}
									href={name === null ? '#/streams' : `#/streams?category=${encodeURIComponent(name)}`}>
									{name === null ? 'All' : <bdi>{visible(name)}</bdi>}
								</a>
							</li>
						))}
					</ul>
				)}
			</Loaded>
		</section>
	);
}

function StreamTable({ streams }) {
	return (
		<Table label="Streams" rows={streams} rowKey={(row) => row.stream} columns={[
			{ key: 'stream', label: 'Stream', align: 'wide', render: (row) => <StreamLink name={row.stream} /> },
			{ key: 'version', label: 'Version', align: 'right', render: (row) => integer(row.version) },
			{ key: 'last_type', label: 'Last event', align: 'wide', render: (row) => <Badge kind="type">{visible(row.last_type)}</Badge> },
			{ key: 'last_position', label: 'Position', align: 'right', render: (row) => integer(row.last_position) },
			{ key: 'last_recorded_at', label: 'Recorded', align: 'nowrap', render: (row) => <Ago value={row.last_recorded_at} /> },
		]} />
	);
}

// With a search, streams are in the order of their names, since only that finds all of them at once.
function pathOf(category, search, limit) {
	if (!search) return paths.streams({ newest: true, category, limit });
	return paths.streams({ prefix: category && !search.startsWith(category) ? `${category}-${search}` : search, limit });
}

export function Streams({ query }) {
	const category = query.get('category') ?? '';
	const [search, setSearch] = useState(query.get('search') ?? '');
	const late = useDebounced(search);
	const [limit, setLimit] = useState(pageSize);
	useEffect(() => {
		replaceQuery({ search: late });
		setLimit(pageSize);
	}, [late, category]);
	const streams = useResource(pathOf(category, late, limit), 10_000);
	return (
		<Page title="Streams" about={late ? 'In the order of their names.' : 'The streams that were written to last come first.'}>
			<Categories chosen={category || null} />
			<section class="card flush" aria-label="Streams">
				<div class="cardhead">
					<div class="field">
						<label for="search">The name begins with</label>
						<input id="search" type="search" value={search} spellcheck={false} autocomplete="off"
							placeholder={category ? `${category}-` : ''} onInput={(event) => setSearch(event.currentTarget.value)} />
					</div>
				</div>
				<Loaded resource={streams} empty="No stream has such a name." isEmpty={(body) => body.length === 0}>
					{(body) => (
						<>
							<StreamTable streams={body} />
							{body.length >= limit && limit < 1000 && (
								<div class="pager"><button onClick={() => setLimit(limit + pageSize)}>Show more</button></div>
							)}
						</>
					)}
				</Loaded>
			</section>
		</Page>
	);
}
