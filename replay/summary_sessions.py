"""The charging sessions of a segment, while its summary is made (summary.py).

A session is told from Inputs and Outputs alone: the car from the boards' (or evse_manager's) events, its
outcome from what EVerest asked for, what the power unit was asked for, and the errors raised meanwhile.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..messages import inputs, outputs
from ..messages.types import BspEvent, ConnectorPhase, Mode, RequirementType
from .log_format import SegmentEnd
from .summary_parts import LIMIT, Session

NO_CAR = "CarDisconnected"
COMMUNICATION_FAULT = "CommunicationFault"
RUNNING = "Running"
COMPLETED = "Completed"

FRESH_NS = 5_000_000_000
"""A power meter that was silent for longer tells nothing about the time in between."""

_NS_PER_HOUR = 3_600_000_000_000
_CAR_CONNECTED = "SessionStarted", "EVConnected"
"""Event and reason, of evse_manager."""
_WITHOUT_CAR = frozenset((NO_CAR, ConnectorPhase.FIRST_KEY.value))

_meter = msgspec.json.Decoder(inputs.PowermeterMeasured)
_request = msgspec.json.Decoder(outputs.PowerRequested)
_stop = msgspec.json.Decoder(outputs.StopRequested)
_silenced = msgspec.json.Decoder(outputs.GooseSilenced)
_bsp_event = msgspec.json.Decoder(inputs.BspEventReceived)
_session_event = msgspec.json.Decoder(inputs.SessionEventReceived)
_mode = msgspec.json.Decoder(inputs.ModeRequested)
_published = msgspec.json.Decoder(outputs.ModePublished)


class Now:
    """The turn whose records are being summarised."""

    __slots__ = ("at_ns", "turn", "utc_ns")

    def __init__(self) -> None:
        self.turn = self.at_ns = self.utc_ns = 0


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


class Sessions:
    """Those that ended, and those that are under way."""

    def __init__(self, now: Now) -> None:
        self.handlers: Mapping[str, Callable[[bytes], None]] = {
            "BspEventReceived": self._bsp_event_received,
            "SessionEventReceived": self._session_event_received,
            "ModeRequested": self._mode_requested,
            "ModePublished": self._mode_published,
            "TurnFailed": self._turn_failed,
            "PowermeterMeasured": self._powermeter_measured,
            "PowerRequested": self._power_requested,
            "StopRequested": self._stop_requested,
            "GooseSilenced": self._goose_silenced,
        }
        """By type: takes the payload of such a message."""
        self.beyond = 0
        """How many there were that are not kept."""
        self.shutting_down = False
        self._now = now
        self._closed: list[Session] = []
        self._open: dict[int, OpenSession] = {}
        self._failed_turn = 0
        self._switched = 0, 0
        """Turn and connector of EVerest's last request of a mode."""
        self._boards: set[int] = set()
        """Connectors whose board has spoken."""

    def restore(self, connector: int, state: Mapping[str, Any]) -> None:
        """What is under way at a connector when the segment begins: its state in the snapshot."""
        phase = state.get("phase", NO_CAR)
        if state.get("bsp_event") is not None:
            self._boards.add(connector)
        if phase not in _WITHOUT_CAR:
            session = OpenSession(connector, self._now.turn, self._now.utc_ns, continued=True)
            session.restore(
                phase, wants_power=state.get("mode") == Mode.EXPORT.value, resuming=bool(state.get("resuming"))
            )
            issued = state.get("issued") or {}
            if issued.get("requirement_type") is not None:
                session.requested(self._now.at_ns, issued["voltage_v"] * issued["current_a"])
            self._open[connector] = session

    def error_raised(self, connector: int, error_type: str) -> None:
        """An error was raised towards EVerest."""
        session = self._open.get(connector)
        if session is not None and error_type == COMMUNICATION_FAULT:
            session.lost_link()

    def listed(self, end: SegmentEnd | None) -> tuple[Session, ...]:
        """All of them; `end`: how the segment ends."""
        still = [self._session(each, 0, self._unfinished(each, end)) for each in self._open.values()]
        return tuple(sorted(self._closed + still, key=lambda session: (session.begin_turn, session.connector)))

    # --- messages ------------------------------------------------------------------------------------------

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
        if connector not in self._open:
            self._open[connector] = OpenSession(connector, self._now.turn, self._now.utc_ns)

    def _car_left(self, connector: int) -> None:
        session = self._open.get(connector)
        if session is not None:
            self._close(session, session.outcome())

    def _mode_requested(self, payload: bytes) -> None:
        message = _mode.decode(payload)
        session = self._open.get(message.connector)
        if session is not None and message.mode in (Mode.OFF, Mode.EXPORT):
            session.switched(on=message.mode is Mode.EXPORT)
        self._switched = self._now.turn, message.connector

    def _mode_published(self, payload: bytes) -> None:
        """Off that EVerest did not ask for: the driver switches off by itself."""
        message = _published.decode(payload)
        session = self._open.get(message.connector)
        asked_for = (
            self._switched == (self._now.turn, message.connector) and self._failed_turn != self._now.turn
        )
        if session is None or message.mode is not Mode.OFF or asked_for:
            return
        if self._failed_turn == self._now.turn:
            session.stopped("a turn failed")
        else:
            session.stopped("the driver ended" if self.shutting_down else "EVerest was lost")

    def _turn_failed(self, _: bytes) -> None:
        self._failed_turn = self._now.turn

    def _close(self, session: OpenSession, outcome: str) -> None:
        del self._open[session.connector]
        if len(self._closed) < LIMIT:
            self._closed.append(self._session(session, self._now.utc_ns, outcome))
        else:
            self.beyond += 1

    def _session(self, session: OpenSession, end_utc_ns: int, outcome: str) -> Session:
        metered_wh, requested_wh = session.energy_wh(self._now.at_ns)
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

    def _unfinished(self, session: OpenSession, end: SegmentEnd | None) -> str:
        if end is None or end.continues:
            return session.unfinished()
        if self.shutting_down or end.goodbye:
            return "driver ended"
        return "driver ended without goodbye"

    def _powermeter_measured(self, payload: bytes) -> None:
        reading = _meter.decode(payload)
        session = self._open.get(reading.connector)
        if session is not None and math.isfinite(power_w := reading.voltage_v * reading.current_a):
            session.metered(self._now.at_ns, power_w)

    def _power_requested(self, payload: bytes) -> None:
        request = _request.decode(payload)
        power_w = request.voltage_v * request.current_a
        session = self._open.get(request.connector)
        if session is not None:
            session.asked(supplying=request.requirement_type is not RequirementType.MODULE_PLACEHOLDER_REQUEST)
        self._request(request.connector, power_w if math.isfinite(power_w) else 0.0)

    def _stop_requested(self, payload: bytes) -> None:
        self._request(_stop.decode(payload).connector, 0.0)

    def _goose_silenced(self, payload: bytes) -> None:
        self._request(_silenced.decode(payload).connector, 0.0)

    def _request(self, connector: int, power_w: float) -> None:
        session = self._open.get(connector)
        if session is not None:
            session.requested(self._now.at_ns, power_w)
