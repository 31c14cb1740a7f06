"""A mistyped member of a body is refused, where to take it as left out would do something else than was meant."""
import pytest


@pytest.fixture
def mails(writer, stream):
    """A subscription with a delivery in flight: its path, and the delivery."""
    assert writer("PUT", f"/v1/subscriptions/{stream}", 201, json={"category": stream.partition("-")[0]}).headers["Location"] \
        == f"/v1/subscriptions/{stream}"
    writer.post(f"/v1/streams/{stream}", [{"type": "sent"}, {"type": "sent"}], 201)
    path = f"/v1/subscriptions/{stream}"
    yield path, writer.post(f"{path}/poll?consumer=c&wait=10", None, 200).json()
    writer.delete(path, 204)


@pytest.mark.parametrize("body", [{"categories": "a"}, {"category": "a", "Types": ["b"]}, [], "start_position", 1, None])
def test_subscription(writer, stream, body):
    answer = writer("PUT", f"/v1/subscriptions/{stream}", 422, json=body) if body is not None else \
        writer("PUT", f"/v1/subscriptions/{stream}", 422, data="null", headers={"Content-Type": "application/json"})
    assert answer.json()["error"] is True
    writer.get(f"/v1/subscriptions/{stream}", 404)


def test_ack_and_nack(writer, mails):
    path, delivery = mails
    token, first = delivery["token"], delivery["events"][0]["position"]
    for body in ({"token": token, "up_to_position": first}, {"Token": token}, [token], token):
        writer("POST", f"{path}/ack", 422, json=body)
    for body in ({"token": token, "position": first, "reason": "x", "Action": "park"}, {"token": token, "position": first}):
        writer("POST", f"{path}/nack", 422, json=body)
    status, = writer.get(path).json()
    assert status["in_flight"] == len(delivery["events"]) and status["parked"] == 0
    answer = writer("POST", f"{path}/ack", 200, json={"token": token, "upto_position": first})
    assert answer.json()["position"] >= first
    writer("POST", f"{path}/ack", 200, json={"token": int(token)})
    assert writer.get(path).json()[0]["in_flight"] == 0


def test_seek(writer, mails):
    path, delivery = mails
    writer("POST", f"{path}/ack", 200, json={"token": delivery["token"]})
    before = writer.get(path).json()[0]["position"]
    for body in ({}, {"positon": 0}, {"position": 0, "more": 1}, [], 5, {"position": "x"}, {"position": 1e30}):
        writer("POST", f"{path}/seek", 422, json=body)
        assert writer.get(path).json()[0]["position"] == before
    writer("POST", f"{path}/seek", 204, json={"position": 0})
    assert writer.get(path).json()[0]["position"] == 0
    writer("POST", f"{path}/seek", 204, json={"position": None})
    assert writer.get(path).json()[0]["position"] >= before
