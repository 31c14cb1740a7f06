"""Pages of streams and of the log: walked to their end they have each event that the filter asks for, once and in order,
whatever the filter, the limit and the direction; and no page is much larger than 8 MiB."""
import json
import urllib.parse

import pytest

CATEGORIES = ("page", "sheet", "leaf")
TYPES = ("opened", "moved", "closed")
TAGS = ("t:1", "t:2", "t:3")
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def events(database):
    """Events of several categories, types and tags, some of which were removed."""
    database.query("""
        SELECT es_append_if((SELECT jsonb_agg(jsonb_build_object(
                   'stream', (ARRAY['page', 'sheet', 'leaf'])[1 + i % 3] || '-' || i % 7,
                   'type', (ARRAY['opened', 'moved', 'closed'])[1 + i % 5 % 3],
                   'tags', CASE i % 4 WHEN 0 THEN '[]'::jsonb WHEN 1 THEN '["t:1"]' WHEN 2 THEN '["t:1", "t:2"]'
                           ELSE jsonb_build_array('t:' || 1 + i % 3) END,
                   'data', i)) FROM generate_series(1, 400) i), '[{"tags": ["none"]}]');
        SELECT es_delete_stream('page-3', 'any'), es_delete_stream('leaf-5', 'any')""")
    return database.query("SELECT position, es_category(stream), type, tags, data->'types', stream, version "
                          "FROM es_events ORDER BY position")


def matches(event, category=None, types=None, tags=None, query=None):
    def has_type(wanted):
        return event[2] in wanted or bool(set(wanted) & set((isinstance(event[4], list) and event[4]) or ()))

    def has_tags(wanted):
        return set(wanted) <= set(event[3] or ())
    return ((category is None or event[1] == category) and (types is None or has_type(types))
            and (tags is None or has_tags(tags))
            and (query is None or any(("types" not in item or has_type(item["types"]))
                                      and has_tags(item.get("tags", ())) for item in query)))


def walk(client, path, parameters, relation="next"):
    """The pages from a path on, by their links."""
    target = path + "?" + urllib.parse.urlencode(parameters, doseq=True)
    pages = []
    seen = set()
    while target:
        assert target not in seen, "the links go in a circle"
        seen.add(target)
        answer = client.get(target)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json())
        link = answer.links.get(relation)
        target = link and path + link["url"]
    return pages


def random_filter(chance):
    def some(names):
        return chance.sample(names, chance.randint(1, 2))
    found = {}
    if chance.random() < 0.5:
        found["category"] = chance.choice(CATEGORIES)
    if chance.random() < 0.4:
        found["types"] = some(TYPES)
    if chance.random() < 0.3:
        found["tags"] = some(TAGS)
    if chance.random() < 0.3:
        found["query"] = [chance.choice(({"types": some(TYPES)}, {"tags": some(TAGS)}, {"types": some(TYPES), "tags": some(TAGS)}))
                          for _ in range(chance.randint(1, 3))]
    return found


@pytest.mark.parametrize("number", range(25))
def test_log_is_walked(reader, events, chance, number):
    wanted = random_filter(chance)
    limit = chance.choice((3, 17, 50, 1000))
    positions = [event[0] for event in events if matches(event, **wanted)]
    parameters = {**wanted, "limit": limit}
    if "query" in wanted:
        parameters["query"] = json.dumps(wanted["query"])
    if chance.random() < 0.5 and positions:
        after = chance.choice(positions)
        parameters["after_position"] = after
        expected = [position for position in positions if position > after]
    else:
        expected = positions
    forward = walk(reader, "/v1/events", parameters)
    assert [event["position"] for page in forward for event in page] == expected, parameters
    assert all(len(page) == limit for page in forward[:-1])
    parameters.pop("after_position", None)
    backward = walk(reader, "/v1/events", {**parameters, "backward": "true"})
    assert [event["position"] for page in backward for event in page] == positions[::-1], parameters
    if len(positions) > limit:                          # and back by the other link
        last = reader.get("/v1/events?" + urllib.parse.urlencode({**parameters, "after_position": positions[limit - 1]},
                                                                doseq=True))
        there = reader.get("/v1/events" + last.links["prev"]["url"]).json()
        assert [event["position"] for event in there] == positions[:limit][::-1]


@pytest.mark.parametrize("stream", ["page-0", "sheet-1", "page-3", "leaf-5"])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_stream_is_walked(reader, events, stream, limit):
    versions = [event[6] for event in events if event[5] == stream]
    assert versions
    for backward, expected in (("false", versions), ("true", versions[::-1])):
        pages = walk(reader, f"/v1/streams/{stream}", {"limit": limit, "backward": backward})
        assert [event["version"] for page in pages for event in page] == expected


def test_follow_has_the_same(reader, events, chance):
    """NDJSON reads with the statement of event streams."""
    for _ in range(15):
        wanted = random_filter(chance)
        parameters = {**wanted, **({"query": json.dumps(wanted["query"])} if "query" in wanted else {})}
        answer = reader.get("/v1/events?" + urllib.parse.urlencode(parameters, doseq=True),
                            headers={"Accept": "application/x-ndjson"})
        assert [json.loads(line)["position"] for line in answer.content.splitlines()] == \
            [event[0] for event in events if matches(event, **wanted)], parameters


def test_names_are_walked(reader, events):
    names = sorted({event[5] for event in events if event[5].startswith(("page-", "leaf-"))})
    for prefix in ("page", "leaf-", "none-such"):
        pages = walk(reader, "/v1/streams", {"prefix": prefix, "limit": 2})
        assert [row["stream"] for page in pages for row in page] == [name for name in names if name.startswith(prefix)]
    pages = walk(reader, "/v1/categories", {"limit": 1})
    found = [row["category"] for page in pages for row in page]
    assert set(CATEGORIES) <= set(found) and found == sorted(found) and len(found) == len(set(found))
    newest = reader.get("/v1/streams?newest=true&category=sheet").json()
    assert [row["last_position"] for row in newest] == sorted((row["last_position"] for row in newest), reverse=True)
    assert {row["stream"] for row in newest} == {event[5] for event in events if event[1] == "sheet"}


def test_pages_are_bounded(writer, stream):
    """Events of a megabyte that does not compress: a page ends after eight of them."""
    noise = "".join(chr(0x4e00 + (n * n * 7919 + n * 104729) % 20000) for n in range(MEGABYTE // 3))
    for number in range(10):
        answer = writer.post(f"/v1/streams/{stream}", json={"type": "large", "data": f"{number}{noise}", "tags": [f"of:{stream}"]})
        assert answer.status_code == 201
    category = stream.partition("-")[0]
    start = writer.get(f"/v1/streams/{stream}/events/1").json()["position"] - 1
    for path, parameters in ((f"/v1/streams/{stream}", {"backward": "true"}),
                             ("/v1/events", {"category": category, "after_position": start}),
                             ("/v1/events", {"tags": f"of:{stream}", "backward": "true"}),
                             (f"/v1/streams/{stream}/history", {"reducer": "es_last"})):
        pages = walk(writer, path, {**parameters, "limit": 1000})
        assert sum(map(len, pages)) == 10 and len(pages) > 1, (path, [len(page) for page in pages])
    found = writer.post("/v1/query", json={"query": [{"tags": [f"of:{stream}"]}]}).json()
    assert 8 <= len(found) < 10
