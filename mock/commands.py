"""What the mock can be told to do while it runs, by a scenario file (scenario.py) or control.py.

    {"do": "alarm", "name": "PowerUnit/Water", "value": 1}  ──►  Alarm(name="PowerUnit/Water", value=1)

Rules:
- A command is checked as a whole before anything is done. Errors say key, value found, what is allowed, and for
  a name that is nearly right which one was meant.
- `connector` is a local number (1 to 4, as on Modbus), `connector_no` a global one (1 to 12, as on GOOSE).
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from ..messages.registers import encode
from .psu_state import RATING_REGISTERS
from .registers import ALARMS, REGISTERS

_Connector = Annotated[int, Meta(ge=1, le=4, description="local connector number, 1 to 4")]
_Duration = Annotated[float, Meta(ge=0, le=1e6, description="seconds, 0 to 1000000")]
_Number = Annotated[float, Meta(description="a number")]
_AlarmName = Annotated[str, Meta(description="Category/Name of a PSU alarm, as PowerUnit/Water")]
_ConnectorNo = Annotated[int, Meta(ge=1, le=12, description="global connector number, 1 to 12")]
_Mac = Annotated[
    str, Meta(pattern=r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\Z", description="a MAC, as 02:00:00:00:00:99")
]
_Word = Annotated[int, Meta(ge=0, le=0xFFFF)]


class CommandError(Exception):
    """A command is not usable. The text is for the user: key, value found, what is allowed."""


class Alarm(Struct, frozen=True, tag="alarm", tag_field="do"):
    """Raise an alarm."""

    name: _AlarmName
    value: Annotated[int, Meta(ge=0, le=0xFFFFFFFF, description="0 to what the register holds")] = 1


class ClearAlarm(Struct, frozen=True, tag="clear_alarm", tag_field="do"):
    """Clear an alarm, or all."""

    name: _AlarmName | None = None


class RunningMode(Struct, frozen=True, tag="running_mode", tag_field="do"):
    """Change the running mode."""

    mode: Annotated[
        Literal["STARTING_UP", "RUNNING", "FAULTY", "SLEEPING", "UPGRADING"],
        Meta(description="STARTING_UP, RUNNING, FAULTY, SLEEPING, UPGRADING"),
    ]


class Ratings(Struct, frozen=True, tag="ratings", tag_field="do"):
    """Change ratings, of one connector or of all."""

    connector: _Connector | None = None
    max_voltage_v: _Number | None = None
    max_current_a: _Number | None = None
    min_voltage_v: _Number | None = None
    min_current_a: _Number | None = None
    power_kw: _Number | None = None


class PortAvailable(Struct, frozen=True, tag="port_available", tag_field="do"):
    """Change whether a connector's port is available, or all ports."""

    available: Annotated[bool, Meta(description="true, false")]
    connector: _Connector | None = None


class Placeholder(Struct, frozen=True, tag="placeholder", tag_field="do"):
    """Change what becomes of module placeholder requests, of one connector or of all."""

    reply: Annotated[Literal["answer", "refuse", "withhold"], Meta(description="answer, refuse, withhold")]
    connector_no: _ConnectorNo | None = None


class Drop(Struct, frozen=True, tag="drop", tag_field="do"):
    """Close all connections (FIN)."""


class Reset(Struct, frozen=True, tag="reset", tag_field="do"):
    """Reset all connections (RST)."""


class Silence(Struct, frozen=True, tag="silence", tag_field="do"):
    """Ask nothing for a while, with the connections open; 0 ends it."""

    for_s: _Duration | None = None


class Refuse(Struct, frozen=True, tag="refuse", tag_field="do"):
    """Accept no new connection for a while, or until `listen`."""

    for_s: _Duration | None = None


class Listen(Struct, frozen=True, tag="listen", tag_field="do"):
    """Accept connections again."""


class Restart(Struct, frozen=True, tag="restart", tag_field="do"):
    """As if the PSU booted anew."""

    for_s: _Duration = 0.0
    mac: _Mac | None = None


class Key(Struct, frozen=True, tag="key", tag_field="do"):
    """Write a connector's key again, or another one."""

    connector: _Connector
    key: Annotated[
        str,
        Meta(
            pattern=r"^(again|new|zero|[0-9a-fA-F]{96})\Z",
            description="again, new, zero, or 48 bytes as 96 hexadecimal digits",
        ),
    ] = "again"


class Write(Struct, frozen=True, tag="write", tag_field="do"):
    """Write words to an address."""

    address: Annotated[int, Meta(ge=0, le=0xFFFF, description="0 to 0xFFFF")]
    words: Annotated[
        tuple[_Word, ...], Meta(min_length=1, max_length=123, description="1 to 123 numbers of 0 to 0xFFFF")
    ]


class Send(Struct, frozen=True, tag="send", tag_field="do"):
    """Send bytes as they are: what no PSU would say."""

    hex: Annotated[
        str,
        Meta(
            pattern="^([0-9a-fA-F]{2})+$",
            max_length=2048,
            description="1 to 1024 bytes as hexadecimal digits, without spaces",
        ),
    ]


Command = (
    Alarm
    | ClearAlarm
    | RunningMode
    | Ratings
    | PortAvailable
    | Placeholder
    | Drop
    | Reset
    | Silence
    | Refuse
    | Listen
    | Restart
    | Key
    | Write
    | Send
)
COMMANDS: dict[str, type[Command]] = {
    str(command.__struct_config__.tag): command for command in get_args(Command)
}


def command_from(table: Mapping[str, object]) -> Command:
    """The command that a table describes. CommandError."""
    do = table.get("do")
    if not isinstance(do, str) or do not in COMMANDS:
        found = "missing" if do is None else f"found {do!r}"
        msg = f"do: {found}{nearest(do, COMMANDS)}; allowed: {', '.join(COMMANDS)}"
        raise CommandError(msg)
    kind = COMMANDS[do]
    hints = get_type_hints(kind, include_extras=True)
    for key, value in table.items():
        if key != "do":
            _check_value(do, key, value, hints)
    for required in kind.__struct_fields__[: len(hints) - len(kind.__struct_defaults__)]:
        if required not in table:
            msg = f"{required}: missing; allowed: {_allowed(hints[required])}"
            raise CommandError(msg)
    command = msgspec.convert(dict(table), kind)
    _check_together(command)
    return command


def alarm_value(name: str, value: int) -> None:
    """Whether there is such an alarm, and whether its register holds the value. CommandError."""
    if name not in ALARMS:
        msg = f"name: found {name!r}{nearest(name, ALARMS)}; allowed: the names in docs/mock.md"
        raise CommandError(msg)
    highest = (1 << 16 * ALARMS[name].words) - 1
    if not 0 <= value <= highest:
        msg = f"value: found {value}; allowed for {name}: 0 to {highest:#x}"
        raise CommandError(msg)


def rating_value(name: str, value: float) -> None:
    """Whether there is such a rating, and whether its register holds the value. CommandError."""
    if name not in RATING_REGISTERS:
        msg = f"found {name!r}{nearest(name, RATING_REGISTERS)}; allowed: {', '.join(RATING_REGISTERS)}"
        raise CommandError(msg)
    try:
        encode(REGISTERS.by_key[f"1/{RATING_REGISTERS[name]}"], value)
    except ValueError:
        msg = f"{name}: found {value}; allowed: what a 32-bit float holds"
        raise CommandError(msg) from None


def nearest(found: object, known: Iterable[str]) -> str:
    """`; did you mean …?` if one is near, else nothing."""
    lower = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(str(found).lower(), lower, 1)
    return f"; did you mean {lower[matches[0]]!r}?" if matches else ""


def _check_value(do: str, key: str, value: object, hints: Mapping[str, Any]) -> None:
    if key not in hints:
        known = ", ".join(hints) or "none"
        msg = f"{key}: {do} has no such key{nearest(key, hints)}; allowed: {known}"
        raise CommandError(msg)
    try:
        msgspec.convert(value, hints[key])
    except msgspec.ValidationError:
        msg = f"{key}: found {value!r}; allowed: {_allowed(hints[key])}"
        raise CommandError(msg) from None


def _check_together(command: Command) -> None:
    """What the type of a single key does not say."""
    match command:
        case Alarm():
            alarm_value(command.name, command.value)
        case ClearAlarm(name=str() as name):
            alarm_value(name, 0)
        case Ratings():
            given = {name: value for name in RATING_REGISTERS if (value := getattr(command, name)) is not None}
            if not given:
                msg = f"ratings: found none; allowed: {', '.join(RATING_REGISTERS)}"
                raise CommandError(msg)
            for name, value in given.items():
                rating_value(name, value)
        case Write() if command.address + len(command.words) > 0x10000:
            msg = f"words: found {len(command.words)} from {command.address:#x}; allowed: up to 0xffff"
            raise CommandError(msg)


def _allowed(hint: Any) -> str:
    """The description in `Annotated[…]` or `Annotated[…] | None`."""
    annotated = hint if hasattr(hint, "__metadata__") else get_args(hint)[0]
    return next(str(meta.description) for meta in annotated.__metadata__ if meta.description)
