"""gateway/openapi.json: it is OpenAPI 3.1, and it says of each route what the route is, and nothing else."""
import copy
import glob
import json
import os
import re
import shutil
import subprocess

import jsonschema
import pytest

import harness
from description import check as check_answer

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openapi")
GATEWAY = os.path.join(harness.TOP, "gateway")
# What the gateway answers without a route.
OWN_PATHS = {("get", path) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")}
# Headers that are the gateway's own, or that OpenAPI does not list.
OWN_HEADERS = {"if-none-match", "last-event-id"}
# Statuses that the reference has once, for all.
COMMON = {"400", "401", "403", "413", "415", "429", "500", "502", "503", "504"}
KINDS = {"bigint": "integer", "integer": "integer", "boolean": "boolean", "text": "string", "uuid": "string",
         "timestamptz": "string", "text[]": "array"}


@pytest.fixture(scope="module")
def description():
    with open(os.path.join(GATEWAY, "openapi.json")) as file:
        return json.load(file)


@pytest.fixture(scope="module")
def routes():
    """{(method, path): (words, {(name, place): (type, default)}, whether it has a body)}"""
    text = subprocess.run([os.path.join(GATEWAY, "routes/generate"), "--list",
                           *sorted(glob.glob(os.path.join(GATEWAY, "routes/*.sql")))],
                          capture_output=True, text=True, check=True).stdout
    found, parameters = {}, None
    for line in text.splitlines():
        if line.startswith("\t"):
            name, place, kind, *default = line[1:].split(" ", 3)
            if place == "header":
                name = name.replace("_", "-")
            if place != "batch":
                parameters[(name, place)] = (kind, default[0] if default else None)
        else:
            method, path, *words = line.split()
            parameters = found.setdefault((method.lower(), path), (set(), {}))[1]
            found[(method.lower(), path)][0].update(words)
    return found


def default_of(text):
    if text is None:
        return None
    if text.startswith("'"):
        return text[1:-1]
    return {"true": True, "false": False}.get(text, text if not re.fullmatch(r"-?\d+", text) else int(text))


def operations(description):
    return {(method, path): operation for path, methods in description["paths"].items()
            for method, operation in methods.items()}


def parameter_faults(where, declared, operation):
    """What the parameters of an operation have that those of its route have not, and the other way round."""
    said = {(p["name"].lower() if p["in"] == "header" else p["name"], p["in"]): p for p in operation.get("parameters", ())}
    faults = []
    for (name, place), (kind, default) in declared.items():
        if place == "body":
            if "requestBody" not in operation:
                faults.append(f"{where}: the body is not described")
            continue
        if (name, place) == ("content-type", "header"):
            continue
        parameter = said.pop((name, place), None)
        if parameter is None:
            faults.append(f"{where}: {name} in {place} is not described")
        elif "schema" in parameter and kind in KINDS:
            if parameter["schema"].get("type") != KINDS[kind]:
                faults.append(f"{where}: {name} is {kind}")
            if parameter["schema"].get("default") != default_of(default):
                faults.append(f"{where}: the default of {name} is {default}")
        elif ("content" in parameter) != (kind == "jsonb"):
            faults.append(f"{where}: {name} is {kind}")
    faults += [f"{where}: there is no {name} in {place}" for name, place in said
               if not (place == "header" and name in OWN_HEADERS)]
    if "requestBody" in operation and not any(place == "body" for _, place in declared):
        faults.append(f"{where}: there is no body")
    return faults


def faults_of(description, routes):
    described = operations(description)
    faults = [f"{method} {path} is not described" for method, path in routes.keys() - described.keys()]
    faults += [f"there is no route {method} {path}" for method, path in described.keys() - routes.keys() - OWN_PATHS]
    for key in routes.keys() & described.keys():
        words, declared = routes[key]
        operation = described[key]
        where = " ".join(key)
        faults += parameter_faults(where, declared, operation)
        if ("public" in words) != (operation.get("security") == []):
            faults.append(f"{where}: who may call it")
        if ("background" in words) != ("202" in operation["responses"]):
            faults.append(f"{where}: whether it goes on in the background")
        if ("follow" in words) != ("text/event-stream" in operation["responses"].get("200", {}).get("content", {})):
            faults.append(f"{where}: whether it is an event stream")
        if "wait" in words and "204" not in operation["responses"]:
            faults.append(f"{where}: 204 when the wait is over")
    return faults


def test_routes_are_described(description, routes):
    assert faults_of(description, routes) == []


@pytest.mark.parametrize("change", [
    lambda paths: paths.pop("/v1/events/{id}"),
    lambda paths: paths.update({"/v1/nothing": {"get": {"responses": {"200": {"description": "none"}}}}}),
    lambda paths: paths["/v1/events"]["get"]["parameters"].pop(0),
    lambda paths: paths["/v1/events"]["get"]["parameters"].append({"name": "x", "in": "query", "schema": {"type": "string"}}),
    lambda paths: paths["/v1/failures"]["get"]["parameters"][6]["schema"].update(default=21),
    lambda paths: paths["/v1/streams/{stream}"]["post"].pop("requestBody"),
    lambda paths: paths["/v1/projections/{projection}/rebuild"]["post"]["responses"].pop("202"),
    lambda paths: paths["/ping"]["get"].pop("security")])
def test_a_difference_is_found(description, routes, change):
    other = copy.deepcopy(description)
    change(other["paths"])
    assert len(faults_of(other, routes)) == 1


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_references_and_names(description):
    """Each reference leads somewhere, each component is used, and each operation has a name and an error."""
    used = set(references(description))
    components = {f"#/components/{kind}/{name}" for kind, group in description["components"].items()
                  if kind != "securitySchemes" for name in group}
    assert used - components == set() and components - used == set()
    names = [operation["operationId"] for operation in operations(description).values()]
    assert len(names) == len(set(names))
    for (method, path), operation in operations(description).items():
        assert any(status >= "400" for status in operation["responses"]) or (method, path) in OWN_PATHS, (method, path)
        for name in re.findall(r"{(\w+)}", path):
            assert any(p["name"] == name and p["in"] == "path" and p["required"] for p in operation["parameters"])


def contents(value):
    """Each media type with a schema and an example."""
    if isinstance(value, dict):
        if "schema" in value and "example" in value:
            yield value
        for part in value.values():
            yield from contents(part)
    elif isinstance(value, list):
        for part in value:
            yield from contents(part)


def test_examples_fit(description):
    count = 0
    for content in contents(description):
        schema = {**content["schema"], "components": description["components"]}
        jsonschema.Draft202012Validator(schema).validate(content["example"])
        count += 1
    assert count > 30


def test_is_openapi():
    """A tool from npm reads it."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm")
    folder = harness.npm_folder(HERE, "openapi")

    def validate(path):
        done = subprocess.run([os.path.join(folder, "node_modules/.bin/validate-api"), path], capture_output=True,
                              text=True, timeout=60)
        return '"valid": true' in done.stdout, done.stdout + done.stderr

    valid, said = validate(os.path.join(GATEWAY, "openapi.json"))
    assert valid, said
    wrong = os.path.join(folder, "wrong.json")
    with open(os.path.join(GATEWAY, "openapi.json")) as file:
        description = json.load(file)
    description["paths"]["/ping"]["get"]["responses"]["200"].pop("description")
    with open(wrong, "w") as file:
        json.dump(description, file)
    assert not validate(wrong)[0]


def test_reference_has_each_request(description):
    """doc/reference/http.md has a section for each operation, with each parameter and each status of its own."""
    with open(os.path.join(harness.TOP, "doc/reference/http.md")) as file:
        sections = dict(re.findall(r"^### `(\w+ \S+)`\n(.*?)(?=^##)", file.read(), re.M | re.S))
    described = {f"{method.upper()} {path}": operation for (method, path), operation in operations(description).items()
                 if (method, path) not in OWN_PATHS}
    assert sections.keys() == described.keys()
    for name, operation in described.items():
        for parameter in operation.get("parameters", ()):
            assert f"| `{parameter['name']}` | {parameter['in']} |" in sections[name], (name, parameter["name"])
        for status in operation["responses"]:
            assert status in sections[name] or status in COMMON, (name, status)


class Fabricated:
    """An answer of requests."""

    def __init__(self, status, content, media="application/json"):
        self.status_code = status
        self.headers = {"Content-Type": media}
        self.content = json.dumps(content).encode()

    def json(self):
        return json.loads(self.content)


@pytest.mark.parametrize("answer, fits", [
    (Fabricated(200, {"count": 1}), True), (Fabricated(200, {"count": "1"}), False), (Fabricated(200, {}), False),
    (Fabricated(200, {"count": 1, "more": 2}), False), (Fabricated(200, {"count": 1}, "text/plain"), False),
    (Fabricated(201, {"count": 1}), False), (Fabricated(405, {}), True), (Fabricated(403, {}, "application/problem+json"), False),
    (Fabricated(403, {"type": "about:blank", "title": "Forbidden", "status": 403, "error": True, "message": "no"},
                "application/problem+json"), True)])
def test_answers_are_held_against_it(answer, fits):
    """What harness.Client does with each answer finds what does not fit."""
    if fits:
        check_answer("GET", "/v1/failures/count?topic=t", answer, True)
    else:
        with pytest.raises(AssertionError):
            check_answer("GET", "/v1/failures/count?topic=t", answer, True)
