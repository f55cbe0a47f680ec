"""The plan of a simulation: everything that is decided before it runs, as a value and as a JSON file.

    seed ──► swarm.py ──► Plan ──► world.py            a failure ──► shrink.py ──► a smaller Plan ──► file

Rules:
- A plan and this version of the package make one and only one run.
- Every event stands for itself: any of them can be left out.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ...messages.config import Config, ConfigError, of_table
from ...messages.types import BspEvent
from ...mock.commands import CommandError, command_from

Seconds = Annotated[float, Meta(ge=0, le=1e7)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Connector = Annotated[int, Meta(ge=1, le=4)]


class PlanError(Exception):
    """A plan is not usable. The text is for the user."""


OddRequest = Literal[
    "import",
    "fault",
    "export_other",
    "import_setpoint",
    "negative_setpoint",
    "huge_setpoint",
    "low_setpoint",
    "zero_setpoint",
    "off",
    "off_cable_check",
    "export",
    "huge_measurement",
]
"""What EVerest asks for, or a device says, without sense."""
Forgery = Literal["captured", "unsigned", "other_connector", "garbage", "other_key", "other_type"]
"""What is wrong with a reply that no honest power unit sent."""


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag=True):
    """Something that happens `at_s` seconds after the beginning."""

    at_s: Seconds


class Session(Event, frozen=True, kw_only=True, tag="session"):
    """A car comes, is charged and leaves; nothing, if another one is still there."""

    connector: Connector
    seed: int
    charge_s: Seconds
    """How long it charges, if nothing comes between."""


class Unplug(Event, frozen=True, kw_only=True, tag="unplug"):
    """The car is gone, whatever is going on."""

    connector: Connector


class Odd(Event, frozen=True, kw_only=True, tag="odd"):
    """EVerest asks for, or a device says, what makes no sense."""

    connector: Connector
    what: OddRequest


class BoardEvent(Event, frozen=True, kw_only=True, tag="board_event"):
    """The board support says this, out of the blue."""

    connector: Connector
    event: BspEvent


class BoardError(Event, frozen=True, kw_only=True, tag="board_error"):
    """The board support raises an error, and clears it some time later."""

    connector: Connector
    error_type: str
    sub_type: str = ""
    for_s: Seconds


class DeviceSilent(Event, frozen=True, kw_only=True, tag="device_silent"):
    """Monitors and meter of a connector say nothing."""

    connector: Connector
    for_s: Seconds


class EverestRestarts(Event, frozen=True, kw_only=True, tag="everest_restarts"):
    """EVerest is gone for a while, and begins anew."""

    for_s: Seconds


class EverestSilent(Event, frozen=True, kw_only=True, tag="everest_silent"):
    """EVerest sends no heartbeats."""

    for_s: Seconds


class HistorySilent(Event, frozen=True, kw_only=True, tag="history_silent"):
    """error_history does not answer."""

    for_s: Seconds


class BrokerLost(Event, frozen=True, kw_only=True, tag="broker_lost"):
    """The connection to the broker is gone for a while. `keeps`: the broker lives and keeps what comes."""

    for_s: Seconds
    keeps: bool


class MqttTrouble(Event, frozen=True, kw_only=True, tag="mqtt_trouble"):
    """Messages to the driver are lost, come twice or late, for a while."""

    for_s: Seconds
    lost: Probability
    twice: Probability
    slow_s: Seconds


class Psu(Event, frozen=True, kw_only=True, tag="psu"):
    """The power unit is told something, as the mock is (docs/mock.md): `{"do": "alarm", "name": …}`."""

    command: dict[str, Any]


class LinkCut(Event, frozen=True, kw_only=True, tag="link_cut"):
    """The connection to the power unit breaks."""


class LinkStalls(Event, frozen=True, kw_only=True, tag="link_stalls"):
    """Nothing comes through to the power unit or from it."""

    for_s: Seconds


class LinkSlow(Event, frozen=True, kw_only=True, tag="link_slow"):
    """Bytes to and from the power unit come late, and in pieces."""

    for_s: Seconds
    slow_s: Seconds
    splits: bool


class GooseTrouble(Event, frozen=True, kw_only=True, tag="goose_trouble"):
    """GOOSE frames are lost, come twice or late, for a while."""

    for_s: Seconds
    lost: Probability
    twice: Probability
    slow_s: Seconds


class GooseForged(Event, frozen=True, kw_only=True, tag="goose_forged"):
    """A reply comes that no honest power unit sent: at once, and before the honest one to each placeholder
    request within a time."""

    connector: Connector
    how: Forgery
    for_s: Seconds = 0.0


class ClockJumps(Event, frozen=True, kw_only=True, tag="clock_jumps"):
    """UTC is corrected."""

    by_s: Annotated[float, Meta(ge=-1e8, le=1e8)]


class HandlerRaises(Event, frozen=True, kw_only=True, tag="handler_raises"):
    """A handler of the core raises (handler_failures.py)."""

    on: str = ""
    call: Annotated[int, Meta(ge=1)]
    after: bool


class ThreadHeld(Event, frozen=True, kw_only=True, tag="thread_held"):
    """The thread of io/ that makes the next Input of this kind is stopped before the core's queue has it
    (io_thread.py). `cut_after_s`: when it has been for so long, the connection to the power unit breaks."""

    on: Literal[
        "PowerRequestReplyReceived",
        "RegistersWritten",
        "RegistersRead",
        "HmacKeyReceived",
        "PsuConnected",
        "PsuConnectFailed",
        "PsuDisconnected",
        "BrokerConnected",
        "BrokerDisconnected",
        "ModeRequested",
        "BspEventReceived",
    ]
    for_s: Annotated[float, Meta(ge=0, le=4.9)]
    """A thread that is stopped for 5 s is a failure, and the driver ends (app/supervision.py)."""
    cut_after_s: Seconds | None = None


class JournalLost(Event, frozen=True, kw_only=True, tag="journal_lost"):
    """The journal cannot be written for a while."""

    for_s: Seconds
    lost_turns: Annotated[int, Meta(ge=0)]


class JournalRotates(Event, frozen=True, kw_only=True, tag="journal_rotates"):
    """The journal begins another segment."""


class DriverRestarts(Event, frozen=True, kw_only=True, tag="driver_restarts"):
    """The driver ends, and is started again."""

    for_s: Seconds
    killed: bool
    cut_bytes: Annotated[int, Meta(ge=0)] = 0
    """Killed while it handed over its last record, of which so much is missing."""
    forgets_alarms: bool = False


class Settles(Event, frozen=True, kw_only=True, tag="settles"):
    """Everything is mended, and 30 s without a fault follow (if nobody plans one); then all must be well."""


AnyEvent = (
    Session
    | Unplug
    | Odd
    | BoardEvent
    | BoardError
    | DeviceSilent
    | EverestRestarts
    | EverestSilent
    | HistorySilent
    | BrokerLost
    | MqttTrouble
    | Psu
    | LinkCut
    | LinkStalls
    | LinkSlow
    | GooseTrouble
    | GooseForged
    | ClockJumps
    | HandlerRaises
    | ThreadHeld
    | JournalLost
    | JournalRotates
    | DriverRestarts
    | Settles
)


def kind_of(event: AnyEvent) -> str:
    """What the event is called in a summary: for the power unit, its command."""
    if isinstance(event, Psu):
        return f"psu {event.command.get('do', '?')}"
    return str(event.__struct_config__.tag)


class Site(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the world around the driver works."""

    heartbeat_s: Annotated[float, Meta(ge=0.1, le=30)] = 1.0
    heartbeats: bool = True
    """Whether EVerest sends any."""
    measure_s: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    setpoint_s: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    """EVerest sends a setpoint so often while a car charges."""
    goose_repeat_s: Annotated[float, Meta(ge=0.5, le=9)] = 5.0
    """Repeats that reach the power unit; it needs one in 10 s to believe that a demand still stands."""
    psu_round_s: Annotated[float, Meta(ge=1, le=100)] = 5.0
    psu_first_round_with_ratings: Annotated[int, Meta(ge=1, le=10)] = 3
    psu_noise: bool = True
    """The grid is never twice the same."""
    psu_signs: bool = True
    own_keys: bool = True
    """A random key for each plug-in; else always the same for all."""
    stops_on_errors: bool = False
    """EVerest ends a charge when the driver raises an error that is no warning."""


class Plan(Struct, frozen=True, kw_only=True):
    """A whole simulation."""

    seed: int
    seconds: float
    config: Config
    site: Site
    events: tuple[AnyEvent, ...]
    """In the order of their times."""


class _PlanFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan as JSON: the configuration as in a configuration file."""

    seed: int
    seconds: Annotated[float, Meta(gt=0, le=1e7)]
    config: dict[str, Any]
    site: Site = Site()
    events: tuple[AnyEvent, ...] = ()


def to_json(plan: Plan) -> bytes:
    """The plan as a file holds it."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"


def read_plan(path: Path) -> Plan:
    """The plan in a file. PlanError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise PlanError(msg) from None
    try:
        found = msgspec.json.decode(data, type=_PlanFile)
        config = of_table(found.config, f"{path}: config")
    except (msgspec.DecodeError, RecursionError, ConfigError) as error:
        msg = str(error) if isinstance(error, ConfigError) else f"{path}: not a plan: {error}"
        raise PlanError(msg) from None
    events = tuple(sorted(found.events, key=lambda event: event.at_s))
    for number, event in enumerate(events, 1):
        problem = _problem(event, len(config.connectors))
        if problem:
            msg = f"{path}: event {number} (at {event.at_s:g} s): {problem}"
            raise PlanError(msg)
    return Plan(seed=found.seed, seconds=found.seconds, config=config, site=found.site, events=events)


def _problem(event: AnyEvent, connectors: int) -> str:
    """What is wrong with an event although every field is allowed."""
    connector = getattr(event, "connector", 0)
    if connector > connectors:
        return f"connector: found {connector}; the configuration has {connectors}"
    if isinstance(event, Psu):
        try:
            command_from(event.command)
        except CommandError as error:
            return f"command: {error}"
    if not all(math.isfinite(value) for value in msgspec.structs.astuple(event) if isinstance(value, float)):
        return "a number is not finite"
    return ""
