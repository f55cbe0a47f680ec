"""What the driver says to EVerest, against EVerest's AsyncAPI documents, where these are (see conftest.py)."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

EVEREST_API = Path(__file__).resolve().parents[3] / "shared" / "everest_api"
APIS = ("power_supply_DC", "error_history_consumer")
"""Those to whose m2e topics the driver publishes."""


class Yaml12Loader(yaml.SafeLoader):
    """The documents are YAML 1.2: only true and false are booleans, `Off` is a string (behaviour.md §8.1)."""


Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))


@functools.cache
def document(api: str) -> Any:
    return yaml.load((EVEREST_API / f"{api}_API.yaml").read_text(), Yaml12Loader)


@functools.cache
def validator(api: str, name: str) -> Draft7Validator:
    """Of the payload on m2e/`name`; StopIteration if the document has no such channel."""
    channels = document(api)["channels"].values()
    channel = next(channel for channel in channels if channel["address"] == f"m2e/{name}")
    (reference,) = channel["messages"].values()
    message = reference["$ref"].rpartition("/")[2]
    registry = Registry().with_resources(
        [(f"{each}_API.yaml", DRAFT7.create_resource(document(each))) for each in APIS]
    )
    return Draft7Validator(
        {"$ref": f"{api}_API.yaml#/components/messages/{message}/payload"}, registry=registry
    )


def said_to_everest(messages: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """What the driver published to EVerest, among all that was published: API, name and payload."""
    found = []
    for topic, payload in dict.fromkeys(messages):
        match topic.split("/"):
            case ["everest_api", "1", api, _, "m2e", name] if api in APIS:
                found.append((api, name, payload))
    return found


def misfits(messages: list[tuple[str, str]]) -> list[str]:
    """What of it does not fit its schema, and why."""
    return [
        f"{api} {name} {payload}: {error.message}"
        for api, name, payload in said_to_everest(messages)
        for error in validator(api, name).iter_errors(json.loads(payload))
    ]
