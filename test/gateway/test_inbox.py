"""What users of Phobos DB Checkpoint have over HTTP: messages that are handled once, failures, retries, lists."""
import concurrent.futures
import uuid

import pytest

CHECKSUMS = {'{"data":"A"}': "c1a837e058f7aa037afdf142c013af05", '{"a":"b"}': "188773471ec0f898fd81d272760a027f",
             '{"a": "b"}': "879646b1d7baab37ff91ef1cc87430f5"}


@pytest.fixture(scope="module")
def inbox(keys):
    """A gateway whose database declares handlers. What each does is said in a table: acknowledge, skip or fail."""
    import harness
    database = harness.Database(f"store_{next(harness.numbers)}").make()
    database.query("""
        CREATE SCHEMA app;
        GRANT USAGE ON SCHEMA app TO PUBLIC;
        CREATE TABLE app.says (what text);
        INSERT INTO app.says VALUES ('acknowledge');
        CREATE TABLE app.calls (payload text);
        GRANT SELECT ON app.says TO writer;
        GRANT INSERT ON app.calls TO writer;
        CREATE FUNCTION app.handle(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
        DECLARE what text := (SELECT s.what FROM app.says s);
        BEGIN
            IF what = 'fail' THEN RAISE 'the handler fails'; END IF;
            INSERT INTO app.calls VALUES (payload);
            IF what = 'skip' THEN RETURN NULL; END IF;
            RETURN ROW('entity-1', '2026-01-01', 'happened', 'v1', NULL, NULL, NULL)::es_ack_event;
        END $$""")
    database.query(f"""ALTER DATABASE {database.name} SET gateway.inbox_handlers = '{{"topic/group": "app.handle",
        "any": "app.handle", "wrong": "app.nothing"}}'""")
    gateway = harness.Gateway(database, keys)
    gateway.start()
    yield database, gateway.client("writer"), gateway.client("operator")
    gateway.stop()


def say(database, what):
    database.query("UPDATE app.says SET what = %s", (what,))


def receive(client, payload, expect=200, topic="topic", **parameters):
    return client("POST", f"/v1/inbox/{topic}/group", expect, data=payload.encode(), params=parameters,
                  headers={"Content-Type": "application/json"}).json()


def is_error(answer, status):
    content = answer.json()
    return answer.status_code == status and content["error"] is True and content["message"]


@pytest.mark.parametrize("payload", CHECKSUMS)
def test_checksum_is_of_the_text_as_received(inbox, payload):
    _, writer, operator = inbox
    assert receive(writer, payload) == {"result": "acknowledged"}
    assert receive(writer, payload) == {"result": "duplicate"}
    rows = [row for row in operator.get("/v1/inbox?topic=topic&limit=100").json() if row["payload"] == payload]
    assert [row["checksum"] for row in rows] == [CHECKSUMS[payload]]
    assert rows[0]["metadata"] == {"content_type": "application/json"}
    assert operator.get(f"/v1/inbox/{rows[0]['id']}").json() == rows[0]


def test_a_message_is_handled_once_though_all_come_at_once(inbox):
    database, writer, _ = inbox
    payload = str(uuid.uuid4())
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        results = [result["result"] for result in threads.map(lambda _: receive(writer, payload), range(16))]
    assert sorted(results) == ["acknowledged"] + ["duplicate"] * 15
    assert database.value("SELECT count(*) FROM app.calls WHERE payload = %s", (payload,)) == 1


def test_a_message_is_known_by_its_id(inbox):
    _, writer, _ = inbox
    key = str(uuid.uuid4())
    assert receive(writer, "one", message_id=key) == {"result": "acknowledged"}
    assert receive(writer, "two", message_id=key) == {"result": "duplicate"}
    answer = writer("POST", "/v1/inbox/any/group", 200, data=b"three", headers={"Idempotency-Key": key})
    assert answer.json() == {"result": "acknowledged"}             # of another topic
    answer = writer("POST", "/v1/inbox/any/group", 200, data=b"four", headers={"Idempotency-Key": key})
    assert answer.json() == {"result": "duplicate"}


def test_the_request_names_no_handler(inbox):
    _, writer, _ = inbox
    assert is_error(writer("POST", "/v1/inbox/undeclared/group", data=b"x"), 404)
    assert is_error(writer("POST", "/v1/inbox/wrong/group", data=b"x"), 404)
    assert is_error(writer("POST", "/v1/inbox/topic/group?handler=app.handle", data=b"x"), 400)


def test_a_failure_is_recorded_at_the_last_retry_and_retried(inbox):
    database, writer, operator = inbox
    payload = str(uuid.uuid4())

    def counts():
        listed = [row for row in operator.get("/v1/inbox?topic=topic&limit=1000").json() if row["payload"] == payload]
        return len(listed), operator.get("/v1/failures/count?topic=topic").json()["count"]
    say(database, "fail")
    for retry_count in (0, 1, 2):
        receive(writer, payload, 422, max_retries=3, retry_count=retry_count)
    assert counts() == (0, 0)
    for _ in range(2):                                              # the same one is recorded once
        assert receive(writer, payload, max_retries=3, retry_count=3) == {"result": "failed"}
    assert counts() == (0, 1)
    failure, = operator.get("/v1/failures?topic=topic").json()
    assert failure["payload"] == payload and failure["message"] == "the handler fails" and failure["sqlstate"] == "P0001"
    path = f"/v1/failures/{failure['id']}"
    assert operator.get(path).json()["id"] == failure["id"]
    assert is_error(operator("POST", f"{path}/retry"), 422) and counts() == (0, 1)
    say(database, "acknowledge")
    assert operator("POST", f"{path}/retry", 200).json() == {"id": failure["id"], "handled": 1}
    assert counts() == (1, 0)
    assert is_error(operator("GET", path), 404) and is_error(operator("POST", f"{path}/retry"), 404)
    assert is_error(operator("DELETE", path), 404)


def test_a_skipped_message_leaves_nothing(inbox):
    database, writer, operator = inbox
    payload = str(uuid.uuid4())
    say(database, "fail")
    assert receive(writer, payload, max_retries=0) == {"result": "failed"}
    failure, = operator.get("/v1/failures?topic=topic").json()
    say(database, "skip")
    assert receive(writer, str(uuid.uuid4())) == {"result": "skipped"}
    assert operator("POST", f"/v1/failures/{failure['id']}/retry", 200).json()["handled"] == 1
    assert operator.get("/v1/failures/count").json() == {"count": 0}
    assert payload not in [row["payload"] for row in operator.get("/v1/inbox?limit=1000").json()]
    say(database, "fail")
    for _ in range(3):
        receive(writer, str(uuid.uuid4()), max_retries=0)
    ids = [row["id"] for row in operator.get("/v1/failures").json()]
    assert operator.post("/v1/failures/retry", {"ids": ids}).json() == {"failures": 3, "handled": 0}
    assert operator("DELETE", f"/v1/failures/{ids[0]}").status_code == 204
    assert operator.post("/v1/failures/discard", {"ids": ids}).json() == {"discarded": 2}
    say(database, "acknowledge")


def test_the_order_of_the_list(inbox):
    """The newest event_time first, nulls last, then the newest received first."""
    database, _, operator = inbox
    database.query("""
        INSERT INTO es_inbox (id, topic, group_id, entity_id, event_type, event_time, received_at, checksum)
        OVERRIDING SYSTEM VALUE
        SELECT 1000 + id, 'list', 'group', 'entity-' || id % 2, 'type-' || id % 3, now() + at * interval '1 s',
               now() + coalesce(received, 0) * interval '1 s', 'checksum-' || id
          FROM (VALUES (1, NULL, -100), (2, NULL, -200), (3, -300, -300), (4, NULL, -400), (5, -400, NULL), (6, -500, NULL))
               AS row (id, at, received)""")

    def listed(query=""):
        answer = operator.get(f"/v1/inbox?topic=list{query}")
        return [row["id"] - 1000 for row in answer.json()], answer.links
    assert listed()[0] == [3, 5, 6, 1, 2, 4]
    first, links = listed("&limit=4")
    assert first == [3, 5, 6, 1] and "prev" not in links
    answer = operator.get("/v1/inbox" + links["next"]["url"])
    assert [row["id"] - 1000 for row in answer.json()] == [2, 4] and "next" not in answer.links
    assert [row["id"] - 1000 for row in operator.get("/v1/inbox" + answer.links["prev"]["url"]).json()] == first
    assert listed("&offset=1&limit=2")[0] == [5, 6]
    assert listed("&entity_id=entity-0")[0] == [6, 2, 4]
    assert listed("&event_type=type-0&group_id=group")[0] == [3, 6]
    assert listed("&group_id=other")[0] == []
