"""The parts of a summary, and what is under way while it is made (summary.py)."""

from msgspec import Struct

from .log_format import Gap, Int64, SegmentEnd

LIMIT = 1000
"""Sessions, alarms, and errors that a summary lists at most, each."""

POWER_UNIT = 0
"""Instead of a connector, in alarms of the power unit."""


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
