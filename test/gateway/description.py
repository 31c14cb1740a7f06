"""Holds the answers of a running gateway against gateway/openapi.json: their statuses, media types, headers and bodies.

A member that the description does not have is a fault, as is one that is missing. harness.Client calls check()."""
import copy
import functools
import json
import os
import re

import jsonschema

TOP = os.environ.get("GATEWAY_TOP", "")
# Statuses that any request may have before its route is known, or instead of it.
OF_HTTP = {405, 406, 408, 411, 414, 415, 417, 429, 431, 501}
JSON = ("application/json", "application/problem+json")
LARGEST = 1 << 18


def closed(schema):
    """The schema, in which an object has no other members than those that are named."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: part if key in ("allOf", "example", "enum") else closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and "type" in schema:
        found["additionalProperties"] = False
    return found


@functools.lru_cache(maxsize=None)
def description():
    with open(os.path.join(TOP, "gateway/openapi.json")) as file:
        return json.load(file)


@functools.lru_cache(maxsize=None)
def paths():
    """[(pattern, operations)], those with fewer parameters first."""
    found = sorted(description()["paths"].items(), key=lambda item: item[0].count("{"))
    return [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), path, operations) for path, operations in found]


@functools.lru_cache(maxsize=None)
def components():
    whole = copy.deepcopy(description()["components"])
    event = whole["schemas"]["Event"]
    whole["schemas"] = closed(whole["schemas"])
    # The members of an event that is delivered are its own and those of the delivery.
    whole["schemas"]["Delivery"]["properties"]["events"]["items"] = \
        {"allOf": [event, whole["schemas"]["Delivery"]["properties"]["events"]["items"]["allOf"][1]], "unevaluatedProperties": False}
    return whole


@functools.lru_cache(maxsize=None)
def validator(path, method, status, media):
    response = description()["paths"][path][method]["responses"][status]
    if "$ref" in response:
        response = description()["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    schema = response.get("content", {}).get(media, {}).get("schema")
    return None if schema is None else jsonschema.Draft202012Validator({**closed(schema), "components": components()})


def operation_of(method, target):
    path = target.partition("?")[0]
    for pattern, name, operations in paths():
        if pattern.fullmatch(path):
            return name, operations.get("get" if method == "HEAD" else method.lower())
    return None, None


def check(method, target, answer, with_body):
    """Raises AssertionError if the answer (of requests) to a request is not as it is described."""
    path, operation = operation_of(method, target)
    if operation is None:
        return
    where = f"{method} {target}: {answer.status_code}"
    response = operation["responses"].get(str(answer.status_code))
    if response is None:
        assert answer.status_code in OF_HTTP, f"{where} is not described"
        return
    if "$ref" in response:
        response = description()["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    media = answer.headers.get("Content-Type", "").partition(";")[0]
    content = response.get("content", {})
    if not content or answer.status_code == 304:
        assert method == "HEAD" or not with_body or not answer.content, f"{where} has a body"
        return
    assert media in content, f"{where}: the media type is {media}"
    if method == "HEAD" or not with_body or media not in JSON or len(answer.content) > LARGEST:
        return
    found = validator(path, "get" if method == "HEAD" else method.lower(), str(answer.status_code), media)
    fault = jsonschema.exceptions.best_match(found.iter_errors(answer.json()))
    assert fault is None, f"{where}: {fault.json_path if fault else ''}: {fault.message if fault else ''}"
