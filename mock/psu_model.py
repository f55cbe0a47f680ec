"""A power unit without hardware, as a pure model (behaviour.md §9): dispensers, GOOSE, drawn power.

    connected, received, disconnected ─┐                      ┌─► Modbus requests
    goose_received                     ├─► PsuModel (pure) ───┼─► GOOSE replies, power on MQTT
    timer, at due_ns                   ─┘                      └─► Observed: the event log

Rules:
- No socket, clock, thread or randomness in here: `now_ns` (monotonic) and the noise are given, so that a test
  or a simulation drives it on a time of its own and gets the same again.
- The Modbus side of a dispenser is dispenser_session.py. A connector is known to GOOSE by its global number.
- GOOSE frames come in verified or not, as the server was told; the model believes them.
"""

import math
from collections.abc import Callable, Iterator

from msgspec import Struct

from ..io.modbus_psu_codec import Answer
from ..messages.goose import GooseHeader, PowerRequest, PowerRequestReply, StopRequest, bits_of_float
from ..messages.types import RequirementType
from .actions import Action, Detail, Observed, PowerPublished, ReplySent
from .dispenser_session import SECOND_NS, AcInput, DispenserSession

KEY = bytes.fromhex(
    "67e426560a70ca4a833c44b31270ca9355d87b020f578e1e9d1974c02fa6f6804c2fcbdf735e711cec085b93814716ad"
)
"""The session key, always the same one (behaviour.md §9): a mock has no secrets."""

GRID_VOLTAGE_V = 230.0
GRID_NOISE_V = 2.0
MAX_CONNECTOR_NO = 12
MAX_PUBLISHERS = 64
RATED_POWER_W = 60_000.0
_PUBLISH_NS = SECOND_NS * 9 // 10
"""Unchanged power is published once a second. The frames that trigger it come every second, some early."""


class _Demand(Struct):
    """What the last GOOSE frame of a connector asked for."""

    identity: tuple[bytes, int, int, int]
    """Source MAC, stNum and t (seconds, fraction): another one is a new message, the same one a repeat."""
    draws: bool
    """Whether a car would draw power now."""
    voltage_v: float
    current_a: float
    settled_ns: int
    """Up to when its energy is counted."""
    valid_until_ns: int
    """timeAllowedToLive after the last frame: a real unit drops its output then (behaviour.md §10)."""
    published_ns: int
    """When it was last published on MQTT."""

    @property
    def power_w(self) -> float:
        power_w = self.voltage_v * self.current_a
        return min(power_w, RATED_POWER_W) if self.draws and math.isfinite(power_w) else 0.0


class PsuModel:
    """Every method gives the Actions that follow from what it was told."""

    def __init__(self, *, mac: bytes, noise: Callable[[], float]) -> None:
        """`mac` is the PSU's on the GOOSE interface; `noise` gives values of -1 to 1."""
        self._mac = mac
        self._noise = noise
        self._sessions: dict[int, DispenserSession] = {}
        self._demands: dict[tuple[bytes, int], _Demand] = {}
        """By source MAC and global connector number: two dispensers may use the same numbers."""
        self._energy_kwh = 0.0
        self._reply_st_num = 0

    @property
    def due_ns(self) -> int | None:
        """When to call `timer`; None for never, as it stands."""
        dues = (session.due_ns for session in self._sessions.values())
        return min((due for due in dues if due is not None), default=None)

    def timer(self, now_ns: int) -> list[Action]:
        """It is `due_ns` or later."""
        return [action for session in self._sessions.values() for action in session.timer(now_ns)]

    # --- Modbus ----------------------------------------------------------------------------------------------

    def connected(self, connection: int, peer: str, now_ns: int) -> list[Action]:
        """A dispenser connected; `connection` is a number of its own, `peer` its address."""
        session = DispenserSession(connection, peer, psu_mac=self._mac, key=KEY, ac_input=self._ac_input)
        self._sessions[connection] = session
        return session.connected(now_ns)

    def received(self, connection: int, event: Answer, now_ns: int) -> list[Action]:
        """A dispenser answered or reported."""
        return self._sessions[connection].received(event, now_ns)

    def disconnected(self, connection: int, reason: str) -> list[Action]:
        """A dispenser's connection is gone."""
        return self._sessions.pop(connection).disconnected(reason)

    def _ac_input(self, now_ns: int) -> AcInput:
        for demand in self._demands.values():
            self._settle(demand, now_ns)
        valid = (demand for demand in self._demands.values() if now_ns < demand.valid_until_ns)
        power_w = sum(demand.power_w for demand in valid)
        a, b, c = (GRID_VOLTAGE_V + GRID_NOISE_V * self._noise() for _ in range(3))
        return AcInput((a, b, c), (power_w / a / 3, power_w / b / 3, power_w / c / 3), self._energy_kwh)

    def _settle(self, demand: _Demand, now_ns: int) -> None:
        """Count the energy that the connector drew since it was last counted."""
        drawn_ns = min(now_ns, demand.valid_until_ns) - demand.settled_ns
        self._energy_kwh += demand.power_w / 1000 * max(0, drawn_ns) / SECOND_NS / 3600
        demand.settled_ns = now_ns

    # --- GOOSE -----------------------------------------------------------------------------------------------

    def goose_received(
        self, message: PowerRequest | StopRequest, header: GooseHeader, src: bytes, now_ns: int
    ) -> list[Action]:
        """A frame of a dispenser that passed the server's checks."""
        number = message.connector_no
        if not 1 <= number <= MAX_CONNECTOR_NO:
            return [Observed("goose_dropped", {"reason": "wrong_connector", "connector_no": number})]
        former = self._demands.get((src, number))
        if former is not None:
            self._settle(former, now_ns)
        demand = _demand(message, header, src, now_ns)
        if former is None and len(self._demands) >= MAX_PUBLISHERS:
            del self._demands[next(iter(self._demands))]  # the oldest
        self._demands[src, number] = demand
        is_repeat = former is not None and former.identity == demand.identity
        actions: list[Action] = [_observed(message, header, src, is_repeat=is_repeat)]
        actions += self._power(number, former, demand, now_ns)
        if (
            isinstance(message, PowerRequest)
            and message.requirement_type is RequirementType.MODULE_PLACEHOLDER_REQUEST
            and not is_repeat
        ):
            actions += self._reply(message, src)
        return actions

    def _power(
        self, connector_no: int, former: _Demand | None, demand: _Demand, now_ns: int
    ) -> Iterator[Action]:
        """At once if it changed, else once a second."""
        if (
            former is not None
            and (former.voltage_v, former.current_a) == (demand.voltage_v, demand.current_a)
            and now_ns - former.published_ns < _PUBLISH_NS
        ):
            demand.published_ns = former.published_ns
            return
        demand.published_ns = now_ns
        yield PowerPublished(connector_no, demand.voltage_v, demand.current_a)

    def _reply(self, request: PowerRequest, dst: bytes) -> Iterator[Action]:
        self._reply_st_num += 1
        reply = PowerRequestReply(
            connector_no=request.connector_no,
            charging_sn=request.charging_sn,
            requirement_type=request.requirement_type,
            result=0,
            mode=request.mode,
            voltage_bits=bits_of_float(request.voltage_v),
            current_bits=bits_of_float(request.current_a),
        )
        yield ReplySent(dst, reply, st_num=self._reply_st_num, sq_num=0)
        yield Observed(
            "placeholder_reply",
            {"connector_no": request.connector_no, "st_num": self._reply_st_num, "sq_num": 0},
        )


def _demand(message: PowerRequest | StopRequest, header: GooseHeader, src: bytes, now_ns: int) -> _Demand:
    demand = _Demand(
        identity=(src, header.st_num, header.t_seconds, header.t_fraction),
        draws=False,
        voltage_v=0.0,
        current_a=0.0,
        settled_ns=now_ns,
        valid_until_ns=now_ns + header.time_allowed_to_live_ms * 1_000_000,
        published_ns=now_ns,
    )
    if isinstance(message, PowerRequest):
        demand.voltage_v = message.voltage_v
        demand.current_a = message.current_a
        # During a cable check and precharge no current flows to speak of.
        demand.draws = message.requirement_type is RequirementType.CHARGING
    return demand


def _observed(
    message: PowerRequest | StopRequest, header: GooseHeader, src: bytes, *, is_repeat: bool
) -> Observed:
    details: dict[str, Detail] = {
        "src": src.hex(":"),
        "connector_no": message.connector_no,
        "st_num": header.st_num,
        "sq_num": header.sq_num,
        "message_utc": header.t_seconds + header.t_fraction / (1 << 24),
        "repeat": is_repeat,
    }
    if isinstance(message, StopRequest):
        return Observed("stop_request", {**details, "reason": message.reason.name})
    details |= {
        "requirement_type": message.requirement_type.name,
        "mode": message.mode.name,
        "voltage": message.voltage_v,
        "current": message.current_a,
    }
    return Observed("power_request", details)
