"""The parts of a summary, and what is under way while it is made: sessions, alarms, errors (summary.py)."""

from msgspec import Struct

from .log_format import Gap, Int64, SegmentEnd

LIMIT = 1000
"""Sessions, alarms, and errors that a summary lists at most, each."""

POWER_UNIT = 0
"""Instead of a connector, in alarms of the power unit."""

NO_CAR = "CarDisconnected"
COMMUNICATION_FAULT = "CommunicationFault"
RUNNING = "Running"
COMPLETED = "Completed"

FRESH_NS = 5_000_000_000
"""A power meter that was silent for longer tells nothing about the time in between."""

_NS_PER_HOUR = 3_600_000_000_000


class Session(Struct, frozen=True):
    """A charging session: from when the car was connected to when it was gone."""

    connector: Int64
    begin_turn: Int64
    begin_utc_ns: Int64
    end_utc_ns: Int64
    """0: the car was still there when the log ended."""
    outcome: str
    metered_wh: float = 0.0
    """Integrated from the power meter's voltage and current, where readings are at most 5 s apart."""
    readings: Int64 = 0
    """Of the power meter; 0: it said nothing, and only `requested_wh` tells of energy."""
    requested_wh: float = 0.0
    """Voltage times current that was asked of the power unit, over the time for which it was."""
    continued: bool = False
    """It had begun before this segment; the begin is the segment's."""


class Occurrence(Struct, frozen=True):
    """An alarm or an error: raised, and cleared."""

    connector: Int64
    """POWER_UNIT: of the power unit."""
    name: str
    begin_turn: Int64
    begin_utc_ns: Int64
    end_utc_ns: Int64
    """0: it was still there when the log ended."""
    continued: bool = False
    """It had begun before this segment; the begin is the segment's."""


class Summary(Struct, frozen=True):
    """What is in a segment, or in several that follow one another."""

    first_turn: Int64 = 0
    """0 and no turns: nothing was recorded."""
    turns: Int64 = 0
    first_utc_ns: Int64 = 0
    last_utc_ns: Int64 = 0
    first_at_ns: Int64 = 0
    """Monotonic time since the start of the process."""
    last_at_ns: Int64 = 0
    counts: dict[str, Int64] = {}
    """Messages by type."""
    run_id: str = ""
    segment: Int64 = 0
    """The last one's, where several are merged."""
    sessions: tuple[Session, ...] = ()
    alarms: tuple[Occurrence, ...] = ()
    """The boards' errors and the power unit's alarms."""
    errors: tuple[Occurrence, ...] = ()
    """What was raised towards EVerest, the power unit's alarms apart."""
    beyond: dict[str, Int64] = {}
    """How many more there were than are listed: sessions, alarms, errors, gaps."""
    goose_dropped: dict[str, Int64] = {}
    """Received GOOSE frames that were dropped, by reason."""
    goose_suspected: dict[str, int] = {}
    """Those that were accepted although they look played again."""
    gaps: tuple[Gap, ...] = ()
    failed_turns: Int64 = 0
    odd_records: Int64 = 0
    """Which were not understood, and only counted."""
    end: SegmentEnd | None = None
    """Of the last segment; None: it was not closed."""


class OpenOccurrence:
    """An alarm or error that is raised."""

    __slots__ = ("continued", "turn", "utc_ns")

    def __init__(self, turn: int, utc_ns: int, *, continued: bool) -> None:
        self.turn = turn
        self.utc_ns = utc_ns
        self.continued = continued


class OpenSession:
    """A charging session, while its car is there."""

    def __init__(self, connector: int, turn: int, utc_ns: int, *, continued: bool = False) -> None:
        self.connector = connector
        self.begin_turn = turn
        self.begin_utc_ns = utc_ns
        self.continued = continued
        self.readings = 0
        self._wants_power = False
        """EVerest does."""
        self._has_charged = False
        """The power unit was asked for more than to get ready: insulation test, precharge, charging."""
        self._is_completed = False
        """EVerest switched off after that."""
        self._stopped = ""
        """Why the driver switched off by itself."""
        self._is_asked = False
        self._link_lost = False
        """While the power unit was asked for something, and it has not been since."""
        self._metered_w_ns = self._requested_w_ns = 0.0
        self._meter: tuple[int, float] | None = None
        self._request: tuple[int, float] | None = None

    def restore(self, phase: str, *, wants_power: bool, resuming: bool) -> None:
        """As it stands in a snapshot: the connector's state, EVerest's mode, and whether the link is lost."""
        self._has_charged = phase in (RUNNING, COMPLETED) or resuming
        self._is_completed = phase == COMPLETED
        self._is_asked = self._has_charged and not self._is_completed
        self._wants_power = wants_power
        self._link_lost = resuming

    def switched(self, *, on: bool) -> None:
        """EVerest wants power, or none."""
        self._wants_power = on
        self._is_completed = self._has_charged and not on and not self._stopped
        if on:
            self._stopped = ""

    def stopped(self, why: str) -> None:
        """The driver switches off by itself."""
        if self._wants_power:
            self._wants_power, self._stopped = False, why

    def asked(self, *, supplying: bool) -> None:
        """The power unit is asked for something; `supplying`: for more than to get ready."""
        self._is_asked, self._link_lost = True, False
        self._has_charged = self._has_charged or supplying

    def lost_link(self) -> None:
        """To the power unit."""
        self._link_lost = self._is_asked and not self._is_completed

    def metered(self, at_ns: int, power_w: float) -> None:
        """The power meter says so."""
        if self._meter is not None and at_ns - self._meter[0] <= FRESH_NS:
            self._metered_w_ns += (at_ns - self._meter[0]) * (power_w + self._meter[1]) / 2
        self._meter = at_ns, power_w
        self.readings += 1

    def requested(self, at_ns: int, power_w: float) -> None:
        """This is asked of the power unit from now on."""
        if self._request is not None:
            self._requested_w_ns += (at_ns - self._request[0]) * self._request[1]
        self._request = at_ns, power_w

    def energy_wh(self, at_ns: int) -> tuple[float, float]:
        """By the power meter, and as requested up to that time."""
        requested_w_ns = self._requested_w_ns
        if self._request is not None:
            requested_w_ns += (at_ns - self._request[0]) * self._request[1]
        return self._metered_w_ns / _NS_PER_HOUR, requested_w_ns / _NS_PER_HOUR

    def outcome(self) -> str:
        """The car is gone."""
        if self._is_completed:
            return "completed by EVerest"
        if self._stopped:
            return f"stopped: {self._stopped}"
        if self._link_lost:
            return "link lost"
        return "car left" if self._has_charged else "car left before charging"

    def unfinished(self) -> str:
        """The log ends, the car is there."""
        if self._is_completed:
            return "completed, car still there"
        if self._stopped:
            return f"stopped: {self._stopped}, car still there"
        if self._link_lost:
            return "link lost, car still there"
        return "still charging" if self._has_charged else "not charging yet"


def listed(
    closed: list[Occurrence], open_ones: dict[tuple[int, str], OpenOccurrence]
) -> tuple[Occurrence, ...]:
    still = [Occurrence(*key, begun.turn, begun.utc_ns, 0, begun.continued) for key, begun in open_ones.items()]
    return tuple(sorted(closed + still, key=lambda found: (found.begin_turn, found.connector, found.name)))


def full_name(error_type: str, sub_type: str) -> str:
    return f"{error_type}/{sub_type}" if sub_type else error_type


def is_psu_alarm(error_type: str, sub_type: str) -> bool:
    """Only the power unit's alarm registers have a category in their name (actors/connector_errors.py)."""
    return error_type == "VendorWarning" and "/" in sub_type
