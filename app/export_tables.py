"""The tables that `log export` writes: their columns, and their rows from turns (docs/formats.md).

    states     a row for every change of a connector's state, and one at each beginning
    messages   a row for every Input and Output

Rules:
- A column has one type, and its name ends in its unit. What is not known is empty, never 0.
- utc is when the turn was, ns since 1970; at_s is monotonic time since the driver's start.
"""

import operator
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from ..actors.connector_state import ConnectorState
from ..actors.dispenser_alarms import DispenserAlarmsState, alarms
from ..actors.names import DISPENSER_ALARMS, PSU_LINK, connector_name
from ..actors.psu_link_state import PsuLinkState
from ..actors.runtime import ActorState
from ..messages.config import Config
from ..messages.types import PsuRunningMode
from ..replay.log_format import NOT_UNDERSTOOD, TOPICS, seal, type_name, unsealed
from ..replay.reader import Turn

Kind = Literal["utc", "float", "int", "bool", "text"]
Value = int | float | str | bool | None
Row = tuple[Value, ...]

_NS_PER_S = 1_000_000_000


class Column(Struct, frozen=True):
    """A column and what it holds; `utc` is an int, ns since 1970."""

    name: str
    kind: Kind


class Table(Struct, frozen=True):
    """A table without its rows."""

    name: str
    columns: tuple[Column, ...]


def _table(name: str, **kinds: Kind) -> Table:
    return Table(name, tuple(Column(column, kind) for column, kind in kinds.items()))


STATES = _table(
    "states",
    utc="utc",
    at_s="float",
    run="text",
    turn="int",
    connector="int",
    connector_no="int",
    as_recorded="bool",
    state="text",
    mode_phase="text",
    mode="text",
    everest_mode="text",
    everest_phase="text",
    bsp_event="text",
    contactor_on="bool",
    setpoint_v="float",
    setpoint_a="float",
    request="text",
    request_v="float",
    request_a="float",
    st_num="int",
    upstream_v="float",
    upstream_silent="bool",
    output_v="float",
    output_a="float",
    output_silent="bool",
    max_v="float",
    max_a="float",
    max_w="float",
    link_state="text",
    connection="int",
    psu_mode="text",
    psu_alarms="text",
    dispenser_alarms="text",
    errors="text",
)
MESSAGES = _table(
    "messages",
    utc="utc",
    at_s="float",
    run="text",
    turn="int",
    place="int",
    channel="text",
    type="text",
    connector="int",
    intact="bool",
    message="text",
)
TABLES = (STATES, MESSAGES)


class StateRows:
    """The rows of `states`, of one run after the other."""

    def __init__(self) -> None:
        self._run = ""
        self._last: dict[int, Row] = {}
        """What was written last of each connector of the run, without when."""
        self._seen: dict[int, tuple[object, ...]] = {}
        """What that was made of."""

    def rows(
        self,
        config: Config,
        states: Mapping[str, ActorState],
        *,
        run: str,
        turn: int,
        at_ns: int,
        utc_ns: int,
        as_recorded: bool,
    ) -> Iterator[Row]:
        """Of the connectors that changed since the last call, as they are after this turn."""
        if run != self._run:
            self._run = run
            self._last.clear()
            self._seen.clear()
        link = states[PSU_LINK]
        assert isinstance(link, PsuLinkState)  # noqa: S101 - names and types belong together (actors/system.py)
        shared = (states[DISPENSER_ALARMS], link.phase, link.connected, link.connection, as_recorded)
        for number, connector in enumerate(config.connectors, 1):
            made_of = (states[connector_name(number)], *shared)
            seen = self._seen.get(number, ())
            # A state that did not change is the same object: cheaper than comparing what is in it.
            if len(seen) == len(made_of) and all(map(operator.is_, seen, made_of)):
                continue
            self._seen[number] = made_of
            columns = _connector(number, len(config.connectors), states)
            row = (number, connector.global_connector_number, as_recorded, *columns)
            if self._last.get(number) != row:
                self._last[number] = row
                yield (utc_ns, at_ns / _NS_PER_S, run, turn, *row)


def message_rows(turn: Turn, run: str) -> Iterator[Row]:
    """The rows of `messages`, of one turn: its Input, place 0, and its Outputs from 1 on."""
    when = (turn.utc_ns, turn.at_ns / _NS_PER_S, run, turn.number)
    payloads = [(seal(turn.input), True)]
    payloads += [(output.payload, output.intact) for output in turn.outputs]
    for place, (payload, is_intact) in enumerate(payloads):
        name, connector = _head(payload)
        text = unsealed(payload).decode("utf-8", "backslashreplace")
        yield (*when, place, TOPICS.get(name), name, connector, is_intact, text)


class _Head(Struct):
    """What is read of any message."""

    connector: int | None = None


_head_decoder = msgspec.json.Decoder(_Head)


def _head(payload: bytes) -> tuple[str, int | None]:
    """Type and connector; of an altered one, what can be read."""
    try:
        return type_name(payload), _head_decoder.decode(payload).connector
    except NOT_UNDERSTOOD:
        return "", None


def _connector(number: int, count: int, states: Mapping[str, ActorState]) -> Row:
    """The columns of `states` from `state` on."""
    connector, link = states[connector_name(number)], states[PSU_LINK]
    dispenser = states[DISPENSER_ALARMS]
    assert isinstance(connector, ConnectorState)  # noqa: S101 - names and types belong together (actors/system.py)
    assert isinstance(link, PsuLinkState)  # noqa: S101
    assert isinstance(dispenser, DispenserAlarmsState)  # noqa: S101
    request, setpoint, issued = connector.last_request, connector.setpoint, connector.issued
    measured, given = connector.measured, connector.capabilities
    return (
        connector.phase.value,
        connector.mode_phase.value,
        connector.mode.value,
        request.mode.value if request else None,
        request.charging_phase.value if request else None,
        connector.bsp_event.value if connector.bsp_event else None,
        connector.contactor_on,
        setpoint.voltage_v if setpoint else None,
        setpoint.current_a if setpoint else None,
        None if issued is None else issued.requirement_type.name if issued.requirement_type else "STOP",
        issued.voltage_v if issued else None,
        issued.current_a if issued else None,
        connector.st_num,
        measured.upstream_v,
        measured.upstream_silent,
        measured.output_v,
        measured.output_a,
        measured.output_silent,
        given.max_export_voltage_V or None,
        given.max_export_current_A or None,
        given.max_export_power_W or None,
        link.phase.value,
        link.connection if link.connected else None,
        _psu_mode(connector.psu_running_mode),
        " ".join(f"{key}={value}" for key, value in connector.psu_alarms.items()),
        " ".join(_dispenser_alarms(dispenser, number, count)),
        " ".join("/".join(filter(None, (fault.error_type, fault.sub_type))) for fault in connector.raised),
    )


def _psu_mode(number: int | None) -> str | None:
    if number is None:
        return None
    return PsuRunningMode(number).name if number in tuple(PsuRunningMode) else str(number)


def _dispenser_alarms(state: DispenserAlarmsState, number: int, count: int) -> Iterator[str]:
    """Those of the whole dispenser, and the connector's own."""
    if not state.errors:
        return
    for key, is_set in alarms(state, count).items():
        connector, _, name = key.rpartition("/")
        if is_set and connector in ("", str(number)):
            yield name
