"""Commands as tables: what is taken, and what is said about what is not."""

import re
from pathlib import Path

import pytest
from fusioncharger.mock.commands import COMMANDS, Alarm, CommandError, Key, Ratings, Refuse, Write, command_from
from fusioncharger.mock.control import MAX_LINE_BYTES, LineReader, parse_line
from fusioncharger.mock.registers import ALARMS
from fusioncharger.mock.scenario import Scenario, ScenarioError, ScenarioRun, Step, read_scenario

DOCS = Path(__file__).parents[2] / "docs" / "mock.md"
NAMES = (
    "alarm, clear_alarm, running_mode, ratings, port_available, placeholder, drop, reset, silence, refuse, "
    "listen, restart, key, write, send"
)


def test_commands() -> None:
    assert ", ".join(COMMANDS) == NAMES
    assert command_from({"do": "alarm", "name": "PowerUnit/Water"}) == Alarm("PowerUnit/Water", 1)
    assert command_from({"do": "ratings", "max_voltage_v": 800}) == Ratings(max_voltage_v=800.0)
    assert command_from({"do": "refuse"}) == Refuse(None)
    assert command_from({"do": "key", "connector": 2}) == Key(2, "again")
    assert command_from({"do": "write", "address": 0x2006, "words": [9]}) == Write(0x2006, (9,))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, f"do: missing; allowed: {NAMES}"),
        ({"do": "alarms"}, f"do: found 'alarms'; did you mean 'alarm'?; allowed: {NAMES}"),
        ({"do": 1}, f"do: found 1; allowed: {NAMES}"),
        ({"do": ["alarm"]}, f"do: found ['alarm']; did you mean 'alarm'?; allowed: {NAMES}"),
        ({"do": "alarm"}, "name: missing; allowed: Category/Name of a PSU alarm, as PowerUnit/Water"),
        (
            {"do": "alarm", "name": "PowerUnit/Watr"},
            "name: found 'PowerUnit/Watr'; did you mean 'PowerUnit/Water'?; allowed: the names in docs/mock.md",
        ),
        (
            {"do": "alarm", "name": "PowerUnit/Water", "value": 1.5},
            "value: found 1.5; allowed: 0 to what the register holds",
        ),
        (
            {"do": "alarm", "name": "PowerUnit/Water", "value": 65536},
            "value: found 65536; allowed for PowerUnit/Water: 0 to 0xffff",
        ),
        ({"do": "clear_alarm", "name": "Water"}, "name: found 'Water'; allowed: the names in docs/mock.md"),
        (
            {"do": "alarm", "name": "PowerUnit/Water", "valu": 2},
            "valu: alarm has no such key; did you mean 'value'?; allowed: name, value",
        ),
        ({"do": "drop", "at": 2}, "at: drop has no such key; allowed: none"),
        (
            {"do": "running_mode", "mode": "FAULT"},
            "mode: found 'FAULT'; allowed: STARTING_UP, RUNNING, FAULTY, SLEEPING, UPGRADING",
        ),
        (
            {"do": "ratings"},
            "ratings: found none; allowed: "
            "max_voltage_v, max_current_a, min_voltage_v, min_current_a, power_kw",
        ),
        ({"do": "ratings", "power_kw": "60"}, "power_kw: found '60'; allowed: a number"),
        ({"do": "ratings", "power_kw": True}, "power_kw: found True; allowed: a number"),
        ({"do": "ratings", "power_kw": 1e39}, "power_kw: found 1e+39; allowed: what a 32-bit float holds"),
        ({"do": "ratings", "connector": 5}, "connector: found 5; allowed: local connector number, 1 to 4"),
        ({"do": "placeholder", "reply": "no"}, "reply: found 'no'; allowed: answer, refuse, withhold"),
        ({"do": "silence", "for_s": -1}, "for_s: found -1; allowed: seconds, 0 to 1000000"),
        ({"do": "silence", "for_s": float("inf")}, "for_s: found inf; allowed: seconds, 0 to 1000000"),
        ({"do": "restart", "mac": "02:00"}, "mac: found '02:00'; allowed: a MAC, as 02:00:00:00:00:99"),
        (
            {"do": "key", "connector": 1, "key": "00"},
            "key: found '00'; allowed: again, new, zero, or 48 bytes as 96 hexadecimal digits",
        ),
        ({"do": "write", "address": 0x10000, "words": [1]}, "address: found 65536; allowed: 0 to 0xFFFF"),
        (
            {"do": "write", "address": 1, "words": []},
            "words: found []; allowed: 1 to 123 numbers of 0 to 0xFFFF",
        ),
        (
            {"do": "write", "address": 0xFFFF, "words": [1, 2]},
            "words: found 2 from 0xffff; allowed: up to 0xffff",
        ),
    ],
)
def test_errors_say_what_was_found_and_what_is_allowed(table: dict[str, object], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        command_from(table)
    assert str(caught.value) == message


# --- scenario ----------------------------------------------------------------------------------------------


def written(directory: Path, text: str) -> str:
    path = directory / "s.toml"
    path.write_text(text)
    return str(path)


def test_steps_are_in_the_order_of_their_time(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        clock = "start"
        [[step]]
        at = 2
        do = "drop"
        [[step]]
        at = 0.5
        do = "alarm"
        name = "DcDcChargingModule/DcDcModule3"
        value = 0x80
        """,
    )
    alarm = Alarm("DcDcChargingModule/DcDcModule3", 0x80)
    assert read_scenario(path) == Scenario(
        "start", (Step(2, 0.5, alarm), Step(1, 2.0, command_from({"do": "drop"})))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[step]", "is no TOML: "),
        ("step = " + "[" * 50_000, "is no TOML: nested too deeply"),
        ("steps = []", "steps: there is no such key; did you mean 'step'?; allowed: clock, step"),
        ('clock = "now"', "clock: found 'now'; allowed: connected, start"),
        ("step = 1", "step: found 1; allowed: [[step]] tables"),
        ('[[step]]\ndo = "drop"', "step 1 (drop): at: missing; allowed: seconds, 0 to 1000000"),
        ('[[step]]\nat = "1"\ndo = "drop"', "step 1 (drop): at: found '1'; allowed: seconds, 0 to 1000000"),
        ("[[step]]\nat = nan", "step 1: at: found nan; allowed: seconds, 0 to 1000000"),
        ("[[step]]\nat = 1", "step 1: do: missing; allowed: alarm, clear_alarm, "),
        (
            '[[step]]\nat = 1\ndo = "drop"\n[[step]]\nat = 1\ndo = "alarm"\nname = "x"',
            "step 2 (alarm): name: found 'x'; allowed: the names in docs/mock.md",
        ),
    ],
)
def test_scenario_errors_say_where(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_clock_of_a_scenario() -> None:
    drop = Step(1, 1.5, command_from({"do": "drop"}))
    run = ScenarioRun(Scenario("connected", (drop,)))
    run.happened("start", 5)
    assert run.due_ns is None
    run.happened("connected", 1000)
    run.happened("connected", 2000)  # the first one counts
    assert run.due_ns == 1_500_001_000
    assert run.take_due(1_500_000_999) is None
    assert run.take_due(1_500_001_000) == drop
    assert run.due_ns is None


# --- control -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"drop", "is no JSON: "),
        (b"\xff", "is no JSON: "),
        (b"[]", 'is no JSON object; write {"do": '),
        (b'{"do": "dorp"}', "do: found 'dorp'; did you mean 'drop'?; allowed: "),
    ],
)
def test_bad_lines(line: bytes, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_line(line)
    assert str(caught.value).startswith(message)


def test_lines_come_in_any_pieces() -> None:
    reader = LineReader()
    assert reader.feed(b'{"do"') == []
    assert reader.feed(b': "drop"}\r\n\n{"do":"reset"}\nx') == [b'{"do": "drop"}\r', b'{"do":"reset"}']
    with pytest.raises(CommandError, match="nested too deeply"):
        parse_line(b"[" * 50_000)
    assert parse_line(b'{"do": "drop"}\r') == command_from({"do": "drop"})
    assert reader.feed(b"y" * MAX_LINE_BYTES) == [b"x" + b"y" * MAX_LINE_BYTES]


# --- documentation -----------------------------------------------------------------------------------------


def test_every_command_and_key_and_alarm_is_documented() -> None:
    text = DOCS.read_text()
    for name, command in COMMANDS.items():
        assert f"`{name}`" in text
        for key in command.__struct_fields__:
            assert f"`{key}`" in text, (name, key)
    for name in ALARMS:
        category, _, short = name.partition("/")
        assert category in text
        assert re.sub(r"\d+$", "", short) in text, name
