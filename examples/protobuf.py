"""Events whose content is Protobuf, with the drivers psycopg 3 and protobuf.

    python3 protobuf.py

It connects by the usual variables, such as PGHOST, PGDATABASE and PGUSER, and appends to the
stream order-1.  The message is built from its descriptor here, so that the example is one file.
A program imports the module that protoc writes from the .proto file.
"""
import uuid

import psycopg
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb


def message_class(name, *fields):
    """The class of a message whose fields have the numbers 1, 2 and so on."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    message = file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields, start=1):
        message.field.add(name=field, number=number, type=kind, label=types.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"shop.{name}")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # before protobuf 4.22


TEXT, INT64 = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_INT64
OrderPlaced = message_class("OrderPlaced", ("product", TEXT), ("cents", INT64))
# A later release has one more field.  It reads the old bytes as well.
OrderPlacedLater = message_class("OrderPlaced", ("product", TEXT), ("cents", INT64), ("coupon", TEXT))


def append(connection, stream, expected, event_id, message, data):
    """Bytes in the body; in data, what is queried."""
    return connection.execute(
        "SELECT version FROM es_append(%s, %s, %s, %s, metadata => %s, id => %s, tags => %s, body => %s)",
        (stream, expected, message.DESCRIPTOR.name, Jsonb(data), Jsonb({"content_type": "application/protobuf"}),
         event_id, [f"product:{message.product}"], message.SerializeToString(deterministic=True))).fetchone()[0]


def main():
    with psycopg.connect(autocommit=True) as connection:
        connection.execute("SELECT es_create_subscription('orders', category => 'order')")
        event_id, placed = uuid.uuid4(), OrderPlaced(product="lamp", cents=4000)
        print("version", append(connection, "order-1", 0, event_id, placed, {"cents": placed.cents}))
        # A retry with the same bytes is recognized.
        print("version", append(connection, "order-1", 0, event_id, placed, {"cents": placed.cents}))

        # The binary format transfers the body as it is, the text format with two digits a byte.
        with connection.cursor(binary=True, row_factory=namedtuple_row) as cursor:
            events = cursor.execute("SELECT * FROM es_poll('orders', 'reader', wait => '5s')").fetchall()
            for event in events:
                message = OrderPlacedLater.FromString(event.body)
                print(event.type, len(event.body), "bytes:", message.product, message.cents, repr(message.coupon))
            cursor.execute("SELECT es_ack('orders', %s)", (events[0].token,))

        (count,) = connection.execute(
            "SELECT count(*) FROM es_read_category('order') WHERE (data->>'cents')::bigint > 1000").fetchone()
        print(count, "large order")


main()
