// Every path of the API that the console uses, in one place.
import { withQuery } from './api.js';

const v1 = (...parts) => `/v1/${parts.map(encodeURIComponent).join('/')}`;

export const paths = {
	whoami: () => v1('whoami'),
	overview: () => v1('overview'),
	health: () => v1('health'),
	stats: () => v1('stats'),
	horizon: () => v1('horizon'),
	categories: (query) => withQuery(v1('categories'), query),
	streams: (query) => withQuery(v1('streams'), query),
	stream: (stream, query) => withQuery(v1('streams', stream), query),
	state: (stream, query) => withQuery(v1('streams', stream, 'state'), query),
	reducers: () => v1('reducers'),
	events: (query) => withQuery(v1('events'), query),
	event: (id) => v1('events', id),
	types: (query) => withQuery(v1('types'), query),
	type: (type, query) => withQuery(v1('types', type), query),
	samples: (type) => v1('types', type, 'samples'),
	projections: () => v1('projections'),
	projection: (name, ...action) => v1('projections', name, ...action),
	subscriptions: () => v1('subscriptions'),
	subscription: (name, ...action) => v1('subscriptions', name, ...action),
	failures: (query) => withQuery(v1('failures'), query),
	failure: (id, ...action) => v1('failures', id, ...action),
	allFailures: (action) => v1('failures', action),
	inbox: (query) => withQuery(v1('inbox'), query),
	removals: (query) => withQuery(v1('removals'), query),
	retention: () => v1('retention'),
};
