"""A shop on an event store, part by part: doc/tutorial/shop.md."""
import hashlib
import hmac
import http.client
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import eventstore
import psycopg
from eventstore import NewEvent

store = eventstore.EventStore("")  # by PGHOST, PGDATABASE, ...
SECRET = os.environ.get("SHOP_SECRET", "of the demo").encode()


def keyed(value):
    return hmac.new(SECRET, value.encode(), hashlib.sha256).hexdigest()


class Refused(Exception):
    pass


def answer(command, *arguments):
    try:
        command(*arguments)
        return "done"
    except Refused as refusal:
        return str(refusal)


def register(customer, email):
    tag = f"email:{keyed(email.lower())}"

    def decide(taken):
        if taken:
            raise Refused(f"{email} is taken")
        return [NewEvent("registered", {"email": email}, tags=[tag], stream=customer)]

    return store.decide_if([{"tags": [tag]}], decide, evolve=lambda taken, event: True, initial=False)


@dataclass(frozen=True)
class Shelf:
    left: int = 0
    open: bool = True  # the cart

    def evolve(self, event):
        if event.type == "stocked":
            return replace(self, left=self.left + event.data["count"])
        if event.type == "taken":
            return replace(self, left=self.left - event.data["count"])
        return replace(self, open=False)


def take(cart, product, count):
    def decide(shelf):
        if not shelf.open:
            raise Refused(f"{cart} is checked out")
        if count > shelf.left:
            raise Refused(f"{shelf.left} left")
        return [NewEvent("taken", {"product": product, "count": count}, tags=[cart, product], stream=cart)]

    query = [{"types": ["stocked", "taken"], "tags": [product]}, {"types": ["checked_out"], "tags": [cart]}]
    return store.decide_if(query, decide, evolve=Shelf.evolve, initial=Shelf())


def check_out(cart, customer):
    def decide(state):
        if state == "empty":
            raise Refused(f"{cart} is empty")
        return [] if state == "closed" else [NewEvent("checked_out", {"customer": customer}, tags=[cart])]

    return store.decide(cart, decide, initial="empty",
                        evolve=lambda state, event: "filled" if event.type == "taken" else "closed")


def lines_of(cart, decided):
    if not store.wait("cart_line", decided):
        raise TimeoutError("the read model is behind")
    rows = store.fetch("SELECT product, count FROM cart_line WHERE cart = %s ORDER BY product", (cart,))
    return ", ".join(f"{count} of {product}" for product, count in rows)


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self):
        payload = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if not hmac.compare_digest(self.headers.get("X-Signature", "").encode(), keyed(payload).encode()):
            return self.reply(401, "wrong signature")
        try:
            rows = store.fetch("SELECT es_receive('payments', 'shop', %s, 'on_payment',"
                               " message_id => %s::jsonb->>'id')", (payload, payload))
            self.reply(200, rows[0][0])
        except psycopg.Error as error:
            self.reply(500, str(error))  # so that it is sent again

    def reply(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


def pay(port, payload, signature):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/", payload, {"X-Signature": signature})
    return connection.getresponse().read().decode()


def send(email, words):
    if "@" not in email:
        raise eventstore.Park(f'"{email}" is no address')
    print(f"mail to {email}: {words}")  # with the event's id, so that the mail server knows a repetition


def mail(event):
    if event.type == "registered":
        send(event.data["email"], "welcome")
    elif event.type == "paid":
        registered = next(store.load(event.data["customer"], max_count=1))
        send(registered.data["email"], f"{event.data['cart']} is paid")


def main():
    register("customer-1", "ann@example.org")
    print("again:", answer(register, "customer-2", "Ann@example.org"))
    register("customer-3", "nobody")

    store.append("product-1", "any", NewEvent("stocked", {"product": "product-1", "count": 5}, tags=["product-1"]))
    print("cart-1:", lines_of("cart-1", take("cart-1", "product-1", 2)))
    with ThreadPoolExecutor() as pool:
        rivals = [pool.submit(answer, take, cart, "product-1", 2) for cart in ("cart-2", "cart-3", "cart-4")]
    print("three take 2:", ", ".join(sorted(rival.result() for rival in rivals)))
    check_out("cart-1", "customer-1")
    print("one more:", answer(take, "cart-1", "product-1", 1))

    webhook = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=webhook.serve_forever, daemon=True).start()
    payload = '{"id": "payment-1", "cart": "cart-1", "customer": "customer-1"}'
    for signed in (payload, payload, "another"):
        print("webhook:", pay(webhook.server_port, payload, keyed(signed)))
    webhook.shutdown()
    eventstore.Consumer(store, "mails", mail, name="mailer-1").run_until_empty()  # a real one: run()
    for stream, message in store.fetch("SELECT stream, message FROM es_failures(subscription => 'mails')"):
        print("parked:", stream, message)


main()
