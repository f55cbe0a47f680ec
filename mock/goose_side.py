"""The GOOSE side of the PSU model: demands, replies, drawn power (behaviour.md §9).

Rules:
- Pure, as all of the model. A connector is known by its dispenser's MAC and its global number.
- Frames come in verified or not, as the server was told; they are believed.
"""

import math
from collections.abc import Callable, Iterator

from msgspec import Struct

from ..messages.goose import GooseHeader, PowerRequest, PowerRequestReply, StopRequest, bits_of_float
from ..messages.types import RequirementType
from .actions import Action, Detail, Observed, PowerPublished, ReplySent
from .dispenser_session import SECOND_NS, AcInput
from .key_book import KeyBook
from .psu_state import PlaceholderPolicy, PsuState

GRID_VOLTAGE_V = 230.0
GRID_NOISE_V = 2.0
MAX_CONNECTOR_NO = 12
MAX_PUBLISHERS = 64
MAX_POWER_W = 1e12
"""No grid gives more, and its current still fits a register; a scenario's rating may be anything."""
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

    def power_w(self, rated_w: float) -> float:
        """What it draws, at most `rated_w`."""
        power_w = self.voltage_v * self.current_a
        return max(0.0, min(power_w, rated_w)) if self.draws and math.isfinite(power_w) else 0.0


class GooseSide:
    """Every method gives the Actions that follow from what it was told."""

    def __init__(self, psu: PsuState, keys: KeyBook, noise: Callable[[], float]) -> None:
        """`noise` gives values of -1 to 1."""
        self._psu = psu
        self._keys = keys
        self._noise = noise
        self._demands: dict[tuple[bytes, int], _Demand] = {}
        """By source MAC and global connector number: two dispensers may use the same numbers."""
        self._energy_kwh = 0.0
        self._reply_st_num = 0

    def restart(self, now_ns: int) -> None:
        """The PSU boots: it delivers nothing and knows nobody. Its energy counter goes on."""
        for demand in self._demands.values():
            self._settle(demand, now_ns)
        self._demands.clear()
        self._reply_st_num = 0

    def ac_input(self, now_ns: int) -> AcInput:
        """What is drawn now."""
        for demand in self._demands.values():
            self._settle(demand, now_ns)
        valid = (demand for demand in self._demands.values() if now_ns < demand.valid_until_ns)
        power_w = sum(demand.power_w(self._rated_w) for demand in valid)
        a, b, c = (GRID_VOLTAGE_V + GRID_NOISE_V * self._noise() for _ in range(3))
        return AcInput((a, b, c), (power_w / a / 3, power_w / b / 3, power_w / c / 3), self._energy_kwh)

    @property
    def _rated_w(self) -> float:
        rated_w = self._psu.ratings["rated_output_power_psu"] * 1000
        return min(rated_w, MAX_POWER_W) if rated_w > 0 else 0.0  # a scenario may make it NaN

    def _settle(self, demand: _Demand, now_ns: int) -> None:
        """Count the energy that the connector drew since it was last counted."""
        drawn_ns = min(now_ns, demand.valid_until_ns) - demand.settled_ns
        self._energy_kwh += demand.power_w(self._rated_w) / 1000 * max(0, drawn_ns) / SECOND_NS / 3600
        demand.settled_ns = now_ns

    def received(
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
            actions += self._answer(message, src)
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

    def _answer(self, request: PowerRequest, dst: bytes) -> Iterator[Action]:
        """To a placeholder request, as the mock was told."""
        policy = self._psu.policy_for(request.connector_no)
        if policy is PlaceholderPolicy.WITHHOLD:
            yield Observed("placeholder_withheld", {"connector_no": request.connector_no})
            return
        self._reply_st_num += 1
        result = 0 if policy is PlaceholderPolicy.ANSWER else 1
        reply = PowerRequestReply(
            connector_no=request.connector_no,
            charging_sn=request.charging_sn,
            requirement_type=request.requirement_type,
            result=result,
            mode=request.mode,
            voltage_bits=bits_of_float(request.voltage_v),
            current_bits=bits_of_float(request.current_a),
        )
        key = self._keys.newest(dst, request.connector_no)
        yield ReplySent(dst, reply, st_num=self._reply_st_num, sq_num=0, key=key)
        yield Observed(
            "placeholder_reply",
            {
                "connector_no": request.connector_no,
                "st_num": self._reply_st_num,
                "sq_num": 0,
                "result": result,
            },
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
