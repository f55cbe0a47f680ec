"""What a segment holds, in short: made by the recorder while it writes, so that it need not be read whole.

    Summariser ── add(record) … ──► Summary of a segment ── merged ──► Summary of the log

Rules:
- Nothing here may raise on what it is fed: the recording goes on whatever its summary is worth.
- The recorder calls `add` for every record: only the types that say more than their number are decoded.
- What is open when a segment begins stands in its snapshot, and is `continued` here; merging joins the parts.
- Lists are bounded (LIMIT); what is beyond is counted.
"""

from collections.abc import Callable
from typing import Any, get_args

import msgspec

from ..messages import inputs, outputs
from ..messages.inputs import AnyInput
from .log_format import Gap, SegmentEnd, SegmentHeader
from .summary_parts import (
    LIMIT,
    POWER_UNIT,
    Occurrence,
    OpenOccurrence,
    Session,
    Summary,
    full_name,
    is_psu_alarm,
    listed,
)
from .summary_sessions import Now, Sessions

__all__ = ["LIMIT", "POWER_UNIT", "Occurrence", "Session", "Summariser", "Summary"]

_INPUTS = frozenset(tagged.__name__ for tagged in get_args(AnyInput))

_header = msgspec.json.Decoder(SegmentHeader)
_gap = msgspec.json.Decoder(Gap)
_end = msgspec.json.Decoder(SegmentEnd)
_started = msgspec.json.Decoder(inputs.Started)
_dropped = msgspec.json.Decoder(inputs.GooseFramesDropped)
_bsp_raised = msgspec.json.Decoder(inputs.BspErrorRaised)
_bsp_cleared = msgspec.json.Decoder(inputs.BspErrorCleared)
_active = msgspec.json.Decoder(inputs.ActiveErrorsReceived)
_raised = msgspec.json.Decoder(outputs.ErrorRaised)
_cleared = msgspec.json.Decoder(outputs.ErrorCleared)


class Summariser:
    """Makes the Summary of a segment from its records, one by one."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: tuple[int, int, int] | None = None
        self._header: tuple[str, int] = "", 0
        self._now = Now()
        self._sessions = Sessions(self._now)
        self._alarms: list[Occurrence] = []
        self._errors: list[Occurrence] = []
        self._gaps: list[Gap] = []
        self._beyond: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._suspected: dict[str, int] = {}
        self._odd_records = 0
        self._end: SegmentEnd | None = None
        self._open_alarms: dict[tuple[int, str], OpenOccurrence] = {}
        self._open_errors: dict[tuple[int, str], OpenOccurrence] = {}
        self._handlers: dict[str, Callable[[bytes], None]] = {
            "SegmentHeader": self._segment_header,
            "Gap": self._gap,
            "SegmentEnd": self._segment_end,
            "Started": self._started,
            "ShutdownRequested": self._shutdown_requested,
            "GooseFramesDropped": self._goose_frames_dropped,
            **self._sessions.handlers,
            "BspErrorRaised": self._bsp_error_raised,
            "BspErrorCleared": self._bsp_error_cleared,
            "ActiveErrorsReceived": self._active_errors_received,
            "ErrorRaised": self._error_raised,
            "ErrorCleared": self._error_cleared,
        }

    def add(self, tag: str, payload: bytes, turn: int, at_ns: int, utc_ns: int) -> None:
        """A record, in its order: type, sealed payload, turn, and the times of its turn."""
        self._counts[tag] = self._counts.get(tag, 0) + 1
        now = self._now
        now.turn, now.at_ns, now.utc_ns = turn, at_ns, utc_ns
        handler = self._handlers.get(tag)
        if handler is not None:
            try:
                handler(payload)
            except Exception:  # noqa: BLE001 - whatever is odd about a record, the recording goes on
                self._odd_records += 1
        if self._first is None and tag in _INPUTS:
            self._first = turn, at_ns, utc_ns

    def summary(self) -> Summary:
        """Of all that was added."""
        beyond = {**self._beyond, "sessions": self._sessions.beyond} if self._sessions.beyond else self._beyond
        first = self._first or (0, 0, 0)
        return Summary(
            first_turn=first[0],
            turns=sum(count for tag, count in self._counts.items() if tag in _INPUTS),
            first_utc_ns=first[2],
            last_utc_ns=self._now.utc_ns if self._first else 0,
            first_at_ns=first[1],
            last_at_ns=self._now.at_ns if self._first else 0,
            counts=dict(self._counts),
            run_id=self._header[0],
            segment=self._header[1],
            sessions=self._sessions.listed(self._end),
            alarms=listed(self._alarms, self._open_alarms),
            errors=listed(self._errors, self._open_errors),
            beyond=dict(beyond),
            goose_dropped=dict(self._dropped),
            goose_suspected=dict(self._suspected),
            gaps=tuple(self._gaps),
            failed_turns=self._counts.get(outputs.TurnFailed.__name__, 0),
            odd_records=self._odd_records,
            end=self._end,
        )

    # --- the segment ---------------------------------------------------------------------------------------

    def _segment_header(self, payload: bytes) -> None:
        header = _header.decode(payload)
        self._header = header.run_id, header.segment
        self._now.utc_ns, self._now.turn = header.utc_ns, header.first_turn
        for name, state in header.snapshot.items():
            kind, _, number = name.partition("/")
            if kind == "connector":
                self._restore(int(number), state)
            elif kind == "dispenser_alarms":
                for error in state.get("errors", ()):
                    self._raise_alarm(
                        error["connector"], full_name(error["error_type"], error["sub_type"]), continued=True
                    )

    def _restore(self, connector: int, state: dict[str, Any]) -> None:
        """What is under way at a connector when the segment begins."""
        self._sessions.restore(connector, state)
        for fault in state.get("raised", ()):
            self._raise_error(connector, fault["error_type"], fault["sub_type"], continued=True)

    def _gap(self, payload: bytes) -> None:
        if self._has_room("gaps", self._gaps):
            self._gaps.append(_gap.decode(payload))

    def _segment_end(self, payload: bytes) -> None:
        self._end = _end.decode(payload)

    def _started(self, payload: bytes) -> None:
        for error in _started.decode(payload).restored_errors:
            self._raise_alarm(error.connector, full_name(error.error_type, error.sub_type), continued=True)

    def _shutdown_requested(self, _: bytes) -> None:
        self._sessions.shutting_down = True

    def _goose_frames_dropped(self, payload: bytes) -> None:
        report = _dropped.decode(payload)
        for sums, counts in ((self._dropped, report.counts), (self._suspected, report.suspected)):
            for reason, count in counts.items():
                if reason in sums or len(sums) < LIMIT:
                    sums[reason] = sums.get(reason, 0) + count

    # --- alarms and errors ---------------------------------------------------------------------------------

    def _bsp_error_raised(self, payload: bytes) -> None:
        error = _bsp_raised.decode(payload)
        self._raise_alarm(error.connector, full_name(error.error_type, error.sub_type))

    def _bsp_error_cleared(self, payload: bytes) -> None:
        error = _bsp_cleared.decode(payload)
        self._clear_alarm(error.connector, full_name(error.error_type, error.sub_type))

    def _active_errors_received(self, payload: bytes) -> None:
        """What the boards have now: all else of theirs is over."""
        now = {
            (error.connector, full_name(error.error_type, error.sub_type))
            for error in _active.decode(payload).errors
        }
        for connector, name in [key for key in self._open_alarms if key[0] != POWER_UNIT and key not in now]:
            self._clear_alarm(connector, name)
        for connector, name in sorted(now):
            self._raise_alarm(connector, name)

    def _error_raised(self, payload: bytes) -> None:
        error = _raised.decode(payload)
        self._sessions.error_raised(error.connector, error.error_type)
        self._raise_error(error.connector, error.error_type, error.sub_type)

    def _error_cleared(self, payload: bytes) -> None:
        error = _cleared.decode(payload)
        if is_psu_alarm(error.error_type, error.sub_type):
            self._clear_alarm(POWER_UNIT, error.sub_type)
        else:
            key = error.connector, full_name(error.error_type, error.sub_type)
            self._clear("errors", self._errors, self._open_errors, key)

    def _raise_error(self, connector: int, error_type: str, sub_type: str, *, continued: bool = False) -> None:
        if is_psu_alarm(error_type, sub_type):  # every connector raises it
            self._raise_alarm(POWER_UNIT, sub_type, continued=continued)
        else:
            self._raise(
                "errors", self._open_errors, (connector, full_name(error_type, sub_type)), continued=continued
            )

    def _raise_alarm(self, connector: int, name: str, *, continued: bool = False) -> None:
        self._raise("alarms", self._open_alarms, (connector, name), continued=continued)

    def _clear_alarm(self, connector: int, name: str) -> None:
        self._clear("alarms", self._alarms, self._open_alarms, (connector, name))

    def _raise(
        self, kind: str, open_ones: dict[tuple[int, str], OpenOccurrence], key: tuple[int, str], continued: bool
    ) -> None:
        if key not in open_ones and self._has_room(kind, open_ones):
            open_ones[key] = OpenOccurrence(self._now.turn, self._now.utc_ns, continued=continued)

    def _clear(
        self,
        kind: str,
        closed: list[Occurrence],
        open_ones: dict[tuple[int, str], OpenOccurrence],
        key: tuple[int, str],
    ) -> None:
        begun = open_ones.pop(key, None)
        if begun is not None and self._has_room(kind, closed):
            closed.append(Occurrence(*key, begun.turn, begun.utc_ns, self._now.utc_ns, begun.continued))

    def _has_room(self, kind: str, listed: list[Any] | dict[Any, Any]) -> bool:
        if len(listed) < LIMIT:
            return True
        self._beyond[kind] = self._beyond.get(kind, 0) + 1
        return False
