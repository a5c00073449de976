"""What the OpenAPI description allows is taken, and what is answered stands in it."""

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.model import InstanceId
from tests.api.conftest import House
from tests.fakes.supervisor import make_view

ALONE = ("force", "remote", "replace", "enable")
"""Of these one value alone asks for more than the description can say."""


def words(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "pattern" in schema:
        inner = re.fullmatch(r"\^(?:\(\?:)?(.*?)\)?\$", schema["pattern"])
        assert inner is not None, schema
        most = schema.get("maxLength", 200)
        ascii_only = st.characters(min_codepoint=32, max_codepoint=126)
        return st.from_regex(inner[1], fullmatch=True, alphabet=ascii_only).filter(
            lambda word: schema.get("minLength", 0) <= len(word) <= most
        )
    plain = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=",")
    return st.text(plain, min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 20))


def value(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False)
        case "array":
            least = schema.get("minItems", 0)
            return st.lists(words(schema["items"]), min_size=least, max_size=least + 2)
        case "object":
            return st.just({})
    return words(schema)


def examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    found: list[Any] = []

    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def collect(one: Any) -> None:
        found.append(one)

    collect()
    return found


def shown(found: Any) -> str:
    if isinstance(found, bool):
        return str(found).lower()
    return ",".join(found) if isinstance(found, list) else str(found)


async def test_every_value_that_a_query_may_have_is_taken(house: House) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    async with house.local(base_url="http://localhost") as local:
        described = await (await local.get("/openapi.json")).json()
        tried: list[tuple[str, str, str, Any, dict[str, Any]]] = []
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                for parameter in operation["parameters"]:
                    if parameter["in"] != "query" or parameter["name"] in ALONE:
                        continue
                    for found in examples(value(parameter["schema"]), 8):
                        tried.append((method, path, parameter["name"], found, operation))
        assert len(tried) > 100
        for method, path, name, found, operation in tried:
            if path in ("/api/events", "/api/import") or name == "wait":
                continue  # a stream, an archive, and minutes of waiting
            where = path.replace("{id}", "sales")
            answer = await local.request(method, where, params={name: shown(found)})
            assert answer.status != 400, (path, name, found, await answer.text())
            assert str(answer.status) in operation["responses"], (path, answer.status)


async def test_a_wait_below_nothing_is_described_as_refused(house: House) -> None:
    async with house.local(base_url="http://localhost") as local:
        described = await (await local.get("/openapi.json")).json()
    for path in ("/whatsapp/{id}/disconnect", "/whatsapp/{id}/start-session"):
        (wait,) = [
            one for one in described["paths"][path]["put"]["parameters"] if one["name"] == "wait"
        ]
        assert wait["schema"]["minimum"] == 0
        assert wait["schema"]["maximum"] < 10_000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/api/instance"),
        ("post", "/api/keys"),
        ("post", "/api/health/check"),
        ("post", "/api/v1/whatsapp/setup"),
    ],
)
async def test_every_body_that_is_described_is_taken(house: House, method: str, path: str) -> None:
    async with house.local(base_url="http://localhost") as local:
        described = await (await local.get("/openapi.json")).json()
        operation = described["paths"][path][method]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        rows = {name: one for name, one in schema["properties"].items() if name != "settings"}
        needed = {name: value(one) for name, one in rows.items() if name in schema["required"]}
        tried = [json.dumps(body) for body in examples(st.fixed_dictionaries(needed), 25)]
        for body in tried:
            headers = {"Content-Type": "application/json"}
            answer = await local.request(method, path, data=body.encode(), headers=headers)
            said = await answer.json()
            assert str(answer.status) in operation["responses"], (body, answer.status)
            # An engine that wants settings or a backend is no matter of the form.
            in_form = answer.status != 400 or str(said["field"]).startswith("settings")
            assert in_form or said["error"] in ("unknown_backend", "no_backend"), (body, said)


async def test_an_address_that_is_not_there_is_answered_with_the_one_that_lists_all(local):
    answer = await local.get("/no-such-address")
    said = (await answer.json())["message"]
    assert (answer.status, said) == (
        404,
        "cannot find this address; /openapi.json lists all routes",
    )
