"""What a segment holds, in short: made by the recorder while it writes, so that it need not be read whole.

    Summariser ── add(record) … ──► Summary of a segment ── merged ──► Summary of the log

Rules:
- Nothing here may raise on what it is fed: the recording goes on whatever its summary is worth.
- The recorder calls `add` for every record: only the types that say more than their number are decoded.
- A session is told from Inputs and Outputs alone: the car from the boards' (or evse_manager's) events, its
  outcome from what EVerest asked for, what the power unit was asked for, and the errors raised meanwhile.
- What is open when a segment begins stands in its snapshot, and is `continued` here; merging joins the parts.
- Lists are bounded (LIMIT); what is beyond is counted.
"""

import math
from collections.abc import Callable
from typing import Any, get_args

import msgspec

from ..messages import inputs, outputs
from ..messages.inputs import AnyInput
from ..messages.types import BspEvent, ConnectorPhase, Mode, RequirementType
from .log_format import Gap, SegmentEnd, SegmentHeader
from .summary_parts import (
    COMMUNICATION_FAULT,
    LIMIT,
    NO_CAR,
    POWER_UNIT,
    Occurrence,
    OpenOccurrence,
    OpenSession,
    Session,
    Summary,
    full_name,
    is_psu_alarm,
    listed,
)

__all__ = ["LIMIT", "POWER_UNIT", "Occurrence", "Session", "Summariser", "Summary"]

_INPUTS = frozenset(tagged.__name__ for tagged in get_args(AnyInput))
_CAR_CONNECTED = "SessionStarted", "EVConnected"
"""Event and reason, of evse_manager."""
_WITHOUT_CAR = frozenset((NO_CAR, ConnectorPhase.FIRST_KEY.value))

_header = msgspec.json.Decoder(SegmentHeader)
_gap = msgspec.json.Decoder(Gap)
_end = msgspec.json.Decoder(SegmentEnd)
_started = msgspec.json.Decoder(inputs.Started)
_dropped = msgspec.json.Decoder(inputs.GooseFramesDropped)
_meter = msgspec.json.Decoder(inputs.PowermeterMeasured)
_bsp_raised = msgspec.json.Decoder(inputs.BspErrorRaised)
_bsp_cleared = msgspec.json.Decoder(inputs.BspErrorCleared)
_active = msgspec.json.Decoder(inputs.ActiveErrorsReceived)
_bsp_event = msgspec.json.Decoder(inputs.BspEventReceived)
_session_event = msgspec.json.Decoder(inputs.SessionEventReceived)
_mode = msgspec.json.Decoder(inputs.ModeRequested)
_published = msgspec.json.Decoder(outputs.ModePublished)
_request = msgspec.json.Decoder(outputs.PowerRequested)
_stop = msgspec.json.Decoder(outputs.StopRequested)
_silenced = msgspec.json.Decoder(outputs.GooseSilenced)
_raised = msgspec.json.Decoder(outputs.ErrorRaised)
_cleared = msgspec.json.Decoder(outputs.ErrorCleared)


class Summariser:
    """Makes the Summary of a segment from its records, one by one."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._turn = self._at_ns = self._utc_ns = 0
        self._first: tuple[int, int, int] | None = None
        self._header: tuple[str, int] = "", 0
        self._sessions: list[Session] = []
        self._alarms: list[Occurrence] = []
        self._errors: list[Occurrence] = []
        self._gaps: list[Gap] = []
        self._beyond: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._suspected: dict[str, int] = {}
        self._odd_records = 0
        self._end: SegmentEnd | None = None
        self._shutting_down = False
        self._failed_turn = 0
        self._switched = 0, 0
        """Turn and connector of EVerest's last request of a mode."""
        self._boards: set[int] = set()
        """Connectors whose board has spoken."""
        self._open_sessions: dict[int, OpenSession] = {}
        self._open_alarms: dict[tuple[int, str], OpenOccurrence] = {}
        self._open_errors: dict[tuple[int, str], OpenOccurrence] = {}
        self._handlers: dict[str, Callable[[bytes], None]] = {
            "SegmentHeader": self._segment_header,
            "Gap": self._gap,
            "SegmentEnd": self._segment_end,
            "Started": self._started,
            "ShutdownRequested": self._shutdown_requested,
            "GooseFramesDropped": self._goose_frames_dropped,
            "BspEventReceived": self._bsp_event_received,
            "SessionEventReceived": self._session_event_received,
            "ModeRequested": self._mode_requested,
            "ModePublished": self._mode_published,
            "TurnFailed": self._turn_failed,
            "PowermeterMeasured": self._powermeter_measured,
            "PowerRequested": self._power_requested,
            "StopRequested": self._stop_requested,
            "GooseSilenced": self._goose_silenced,
            "BspErrorRaised": self._bsp_error_raised,
            "BspErrorCleared": self._bsp_error_cleared,
            "ActiveErrorsReceived": self._active_errors_received,
            "ErrorRaised": self._error_raised,
            "ErrorCleared": self._error_cleared,
        }

    def add(self, tag: str, payload: bytes, turn: int, at_ns: int, utc_ns: int) -> None:
        """A record, in its order: type, sealed payload, turn, and the times of its turn."""
        self._counts[tag] = self._counts.get(tag, 0) + 1
        self._turn, self._at_ns, self._utc_ns = turn, at_ns, utc_ns
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
        sessions = list(self._sessions)
        sessions += [
            self._session(session, 0, self._unfinished(session)) for session in self._open_sessions.values()
        ]
        first = self._first or (0, 0, 0)
        return Summary(
            first_turn=first[0],
            turns=sum(count for tag, count in self._counts.items() if tag in _INPUTS),
            first_utc_ns=first[2],
            last_utc_ns=self._utc_ns if self._first else 0,
            first_at_ns=first[1],
            last_at_ns=self._at_ns if self._first else 0,
            counts=dict(self._counts),
            run_id=self._header[0],
            segment=self._header[1],
            sessions=tuple(sorted(sessions, key=lambda session: (session.begin_turn, session.connector))),
            alarms=listed(self._alarms, self._open_alarms),
            errors=listed(self._errors, self._open_errors),
            beyond=dict(self._beyond),
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
        self._utc_ns, self._turn = header.utc_ns, header.first_turn
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
        phase = state.get("phase", NO_CAR)
        if state.get("bsp_event") is not None:
            self._boards.add(connector)
        if phase not in _WITHOUT_CAR:
            session = OpenSession(connector, self._turn, self._utc_ns, continued=True)
            session.restore(
                phase, wants_power=state.get("mode") == Mode.EXPORT.value, resuming=bool(state.get("resuming"))
            )
            issued = state.get("issued") or {}
            if issued.get("requirement_type") is not None:
                session.requested(self._at_ns, issued["voltage_v"] * issued["current_a"])
            self._open_sessions[connector] = session
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
        self._shutting_down = True

    def _goose_frames_dropped(self, payload: bytes) -> None:
        report = _dropped.decode(payload)
        for sums, counts in ((self._dropped, report.counts), (self._suspected, report.suspected)):
            for reason, count in counts.items():
                if reason in sums or len(sums) < LIMIT:
                    sums[reason] = sums.get(reason, 0) + count

    # --- sessions ------------------------------------------------------------------------------------------

    def _bsp_event_received(self, payload: bytes) -> None:
        """The car, as the board says it; what evse_manager says counts no more then (actors/connector.py)."""
        message = _bsp_event.decode(payload)
        self._boards.add(message.connector)
        if message.event is BspEvent.B:
            self._car_connected(message.connector)
        elif message.event is BspEvent.A:
            self._car_left(message.connector)

    def _session_event_received(self, payload: bytes) -> None:
        message = _session_event.decode(payload)
        if message.connector in self._boards:
            return
        if message.event == "TransactionStarted" or (message.event, message.reason) == _CAR_CONNECTED:
            self._car_connected(message.connector)
        elif message.event == "SessionFinished":
            self._car_left(message.connector)

    def _car_connected(self, connector: int) -> None:
        if connector not in self._open_sessions:
            self._open_sessions[connector] = OpenSession(connector, self._turn, self._utc_ns)

    def _car_left(self, connector: int) -> None:
        session = self._open_sessions.get(connector)
        if session is not None:
            self._close(session, session.outcome())

    def _mode_requested(self, payload: bytes) -> None:
        message = _mode.decode(payload)
        session = self._open_sessions.get(message.connector)
        if session is not None and message.mode in (Mode.OFF, Mode.EXPORT):
            session.switched(on=message.mode is Mode.EXPORT)
        self._switched = self._turn, message.connector

    def _mode_published(self, payload: bytes) -> None:
        """Off that EVerest did not ask for: the driver switches off by itself."""
        message = _published.decode(payload)
        session = self._open_sessions.get(message.connector)
        asked_for = self._switched == (self._turn, message.connector) and self._failed_turn != self._turn
        if session is None or message.mode is not Mode.OFF or asked_for:
            return
        if self._failed_turn == self._turn:
            session.stopped("a turn failed")
        else:
            session.stopped("the driver ended" if self._shutting_down else "EVerest was lost")

    def _turn_failed(self, _: bytes) -> None:
        self._failed_turn = self._turn

    def _close(self, session: OpenSession, outcome: str) -> None:
        del self._open_sessions[session.connector]
        if self._has_room("sessions", self._sessions):
            self._sessions.append(self._session(session, self._utc_ns, outcome))

    def _session(self, session: OpenSession, end_utc_ns: int, outcome: str) -> Session:
        metered_wh, requested_wh = session.energy_wh(self._at_ns)
        return Session(
            session.connector,
            session.begin_turn,
            session.begin_utc_ns,
            end_utc_ns,
            outcome,
            metered_wh,
            session.readings,
            requested_wh,
            session.continued,
        )

    def _unfinished(self, session: OpenSession) -> str:
        if self._end is None or self._end.continues:
            return session.unfinished()
        if self._shutting_down or self._end.goodbye:
            return "driver ended"
        return "driver ended without goodbye"

    def _powermeter_measured(self, payload: bytes) -> None:
        reading = _meter.decode(payload)
        session = self._open_sessions.get(reading.connector)
        if session is not None and math.isfinite(power_w := reading.voltage_v * reading.current_a):
            session.metered(self._at_ns, power_w)

    def _power_requested(self, payload: bytes) -> None:
        request = _request.decode(payload)
        power_w = request.voltage_v * request.current_a
        session = self._open_sessions.get(request.connector)
        if session is not None:
            session.asked(supplying=request.requirement_type is not RequirementType.MODULE_PLACEHOLDER_REQUEST)
        self._request(request.connector, power_w if math.isfinite(power_w) else 0.0)

    def _stop_requested(self, payload: bytes) -> None:
        self._request(_stop.decode(payload).connector, 0.0)

    def _goose_silenced(self, payload: bytes) -> None:
        self._request(_silenced.decode(payload).connector, 0.0)

    def _request(self, connector: int, power_w: float) -> None:
        session = self._open_sessions.get(connector)
        if session is not None:
            session.requested(self._at_ns, power_w)

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
        session = self._open_sessions.get(error.connector)
        if session is not None and error.error_type == COMMUNICATION_FAULT:
            session.lost_link()
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
            open_ones[key] = OpenOccurrence(self._turn, self._utc_ns, continued=continued)

    def _clear(
        self,
        kind: str,
        closed: list[Occurrence],
        open_ones: dict[tuple[int, str], OpenOccurrence],
        key: tuple[int, str],
    ) -> None:
        begun = open_ones.pop(key, None)
        if begun is not None and self._has_room(kind, closed):
            closed.append(Occurrence(*key, begun.turn, begun.utc_ns, self._utc_ns, begun.continued))

    def _has_room(self, kind: str, listed: list[Any] | dict[Any, Any]) -> bool:
        if len(listed) < LIMIT:
            return True
        self._beyond[kind] = self._beyond.get(kind, 0) + 1
        return False
