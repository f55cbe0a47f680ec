"""That a target can fail: a bug is put in, and its corpus finds it."""

import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from fusioncharger.actors.connector import Connector
from fusioncharger.app import bundle_verify, check_config, everest_config
from fusioncharger.io import goose_codec, goose_receiver, goose_replay_guard
from fusioncharger.io.everest_codec import EverestCodec
from fusioncharger.io.goose_replay_guard import ReplayGuard
from fusioncharger.io.key_ring import KeyRing
from fusioncharger.io.modbus_adu import AduStream
from fusioncharger.messages.config import parse
from fusioncharger.messages.inputs import SetpointRequested
from fusioncharger.mock import scenario
from fusioncharger.mock.goose_side import _Demand
from fusioncharger.mock.tls_session import TlsSession
from fusioncharger.replay import reader, recover
from fuzz.run import CORPUS, TARGETS, load
from msgspec.structs import replace

Broken = Callable[[Any], Callable[..., Any]]
"""From the function as it is to the one with the bug."""

ONE_CONNECTOR = """
[[connectors]]
global_connector_number = 1
max_export_current_A = 1
max_export_power_W = 1
power_supply_DC = "p"
evse_board_support = "b"
isolation_monitor = "i"
"""


def loses_a_byte(feed: Any) -> Callable[..., Any]:
    return lambda stream, data: feed(stream, data[1:] if len(data) == 7 else data)


def forgets_sq_num(usual: Any) -> Callable[..., Any]:
    def broken(*arguments: Any) -> Any:
        found = usual(*arguments)
        return found and (replace(found[0], sq_num=0), found[1])

    return broken


def raises_at_a_huge_setpoint(handle: Any) -> Callable[..., Any]:
    def broken(connector: Connector, message: Any) -> None:
        if isinstance(message, SetpointRequested) and message.voltage_v > 1e200:
            raise KeyError
        handle(connector, message)

    return broken


def takes_retained(decode: Any) -> Callable[..., Any]:
    return lambda codec, topic, payload, **flags: decode(codec, topic, payload, **{**flags, "retained": False})


def remembers_what_it_suspects(judge: Any) -> Callable[..., Any]:
    def broken(guard: Any, *arguments: Any, **when: Any) -> Any:
        found = judge(guard, *arguments, **when)
        if found is not None:
            for publisher in guard._publishers.values():
                publisher.valid_until_ns += 1
        return found

    return broken


def keeps_one_too_few(before: Any) -> Callable[..., Any]:
    def broken(segment: Any) -> Any:
        last_turn, records, damage = before(segment)
        return last_turn, max(1, records - 1), damage

    return broken


@pytest.mark.parametrize(
    ("target", "where", "name", "broken"),
    [
        ("modbus", AduStream, "feed", loses_a_byte),
        ("modbus", KeyRing, "mask_adu", lambda _: lambda _ring, adu, *_range: adu),
        ("goose", goose_receiver, "verify", lambda _: lambda *_: True),
        ("goose", goose_codec, "decode_usual_header", forgets_sq_num),
        ("goose", goose_replay_guard, "_suspected", lambda _: lambda *_: None),
        ("goose", ReplayGuard, "judge", remembers_what_it_suspects),
        ("mqtt", EverestCodec, "decode", takes_retained),
        ("core", Connector, "handle", raises_at_a_huge_setpoint),
        ("config", check_config, "of_table", lambda _: lambda _table, name: parse(ONE_CONNECTOR, name)),
        ("everest", everest_config, "quoted", lambda _: lambda text: f'"{text}"'),
        ("journal", reader, "is_intact", lambda _: lambda *_: True),
        ("journal", recover, "_before_damage", keeps_one_too_few),
        (
            "psu_mock",
            _Demand,
            "power_w",
            lambda _: lambda demand, _rated_w: demand.voltage_v * demand.current_a,
        ),
        ("bundle", bundle_verify, "_CANNOT_UNPACK", lambda _: zipfile.BadZipFile),
        ("scenario", scenario, "TomlError", lambda _: KeyError),
        ("tls", TlsSession, "receive", lambda receive: lambda tls, data: receive(tls, data)[:-1]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bug_is_found(
    monkeypatch: pytest.MonkeyPatch, target: str, where: object, name: str, broken: Broken
) -> None:
    check = load(target)
    monkeypatch.setattr(where, name, broken(getattr(where, name)))
    found = 0
    for path in sorted((CORPUS / target).iterdir()):
        try:
            check(path.read_bytes())
        except Exception:  # noqa: BLE001 - any is a finding
            found += 1
    assert found


def test_every_target_has_a_bug_here() -> None:
    (bugs,) = [mark for mark in test_a_bug_is_found.pytestmark if mark.name == "parametrize"]
    assert {bug[0] for bug in bugs.args[1]} == set(TARGETS)
