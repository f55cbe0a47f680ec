"""The Modbus side of the PSU model, for one dispenser: what is asked of it, and when (behaviour.md §9).

    connect ──► read 0x1015 ──► round 1 ──5 s──► round 2 ──5 s──► round 3 (from here on with the ratings) ──► …
                                report shows a plug-in ──► write that connector's key, before what else waits

Rules:
- Pure: no socket, no clock; `now_ns` is an argument, what is to be done comes back as Actions.
- One request at a time: the next goes out when the last is answered. No answer for 5 s ends the connection.
- The order within a round is the one of the captures (protocol.md §2).
"""

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from ..io.modbus_adu import READ, WRITE, WRITE_SINGLE
from ..io.modbus_psu_codec import Answer, ExceptionAnswer, ReadAnswer, Report, WriteAnswer
from ..messages.registers import RegisterMap, Value, decode, encode
from ..messages.types import PsuRunningMode, WorkingStatus
from .actions import Action, Detail, DisconnectAsked, Observed, ReadAsked, WriteAsked

REGISTERS = RegisterMap(4)
"""With the most connectors that a dispenser can have: addresses do not depend on their number."""

SECOND_NS = 1_000_000_000
ROUND_NS = 5 * SECOND_NS
FIRST_ROUND_WITH_RATINGS = 3
"""10 s after the connect, as the hardware does."""
ANSWER_TIMEOUT_NS = 5 * SECOND_NS

_LAST_OF_ROUND = "ac_input_current_c"

RATINGS: dict[str, float] = {
    "max_rated_psu_voltage": 1000.0,
    "max_rated_psu_current": 100.0,
    "min_rated_psu_voltage": 100.0,
    "min_rated_psu_current": 1.0,
    "rated_output_power_psu": 60.0,
}
"""V, A, V, A, kW."""


class AcInput(Struct, frozen=True):
    """What the PSU draws from the grid."""

    voltages_v: tuple[float, float, float]
    currents_a: tuple[float, float, float]
    energy_kwh: float


class _Request(Struct, frozen=True):
    function: int
    address: int
    count: int
    words: tuple[int, ...] = ()
    """Empty for a read."""
    connector: int = 0
    """Local number that it is about, 0 for none."""
    name: str = ""
    """Name of the register."""


class DispenserSession:
    """One connection. Every method gives the Actions that follow from it."""

    def __init__(
        self, connection: int, peer: str, *, psu_mac: bytes, key: bytes, ac_input: Callable[[int], AcInput]
    ) -> None:
        """`ac_input` gives the values at a time in ns."""
        self.connection = connection
        self.peer = peer
        self._psu_mac = psu_mac
        self._key = key
        self._ac_input = ac_input
        self._urgent: deque[_Request] = deque()
        """Goes before what waits."""
        self._waiting: deque[_Request] = deque()
        self._asked: _Request | None = None
        self._transaction_id = -1
        self._answer_due_ns: int | None = None
        self._connector_count = 0
        self._round = 0
        self._round_due_ns: int | None = None
        self._working_status: dict[int, int] = {}
        """Local number to what the last report said."""

    @property
    def due_ns(self) -> int | None:
        """When to call `timer`."""
        return min((due for due in (self._answer_due_ns, self._round_due_ns) if due is not None), default=None)

    def connected(self, now_ns: int) -> list[Action]:
        """The dispenser connected."""
        self._waiting.append(_read("charging_connectors_count"))
        return [self._observed("connected"), *self._ask_next(now_ns)]

    def disconnected(self, reason: str) -> list[Action]:
        """The connection is gone."""
        return [self._observed("disconnected", reason=reason)]

    def timer(self, now_ns: int) -> list[Action]:
        """It is `due_ns` or later."""
        if self._answer_due_ns is not None and now_ns >= self._answer_due_ns:
            self._answer_due_ns = None
            self._round_due_ns = None
            return [DisconnectAsked(self.connection, "no answer to a request for 5 s")]
        if self._round_due_ns is not None and now_ns >= self._round_due_ns:
            self._round_due_ns += ROUND_NS
            return self._begin_round(now_ns)
        return []

    def received(self, event: Answer, now_ns: int) -> list[Action]:
        """An answer or a report."""
        if isinstance(event, Report):
            return self._report(event, now_ns)
        asked = self._asked
        if asked is None or event.transaction_id != self._transaction_id or not _fits(event, asked):
            return [self._observed("unexpected_answer", transaction_id=event.transaction_id)]
        self._asked = None
        self._answer_due_ns = None
        actions: list[Action] = []
        match event:
            case ExceptionAnswer():
                actions += self._refused(asked, event.exception_code)
            case ReadAnswer():
                actions += self._read_answered(asked, event.words, now_ns)
            case WriteAnswer() if asked.name == "hmac_key":
                actions.append(self._observed("key_acknowledged", connector=asked.connector))
            case WriteAnswer() if asked.name == _LAST_OF_ROUND:
                actions.append(self._observed("round_done", round=self._round))
        return actions + self._ask_next(now_ns)

    def _refused(self, asked: _Request, exception_code: int) -> list[Action]:
        refused = self._observed(
            "request_refused",
            function=asked.function,
            address=asked.address,
            register=asked.name,
            exception_code=exception_code,
        )
        if self._connector_count:
            return [refused]
        return [refused, DisconnectAsked(self.connection, "the number of connectors cannot be read")]

    def _read_answered(self, asked: _Request, words: tuple[int, ...], now_ns: int) -> list[Action]:
        value = words[0] if words else 0
        if asked.name == "charging_connectors_count":
            if not 1 <= value <= 4:
                return [DisconnectAsked(self.connection, f"{value} connectors, allowed are 1 to 4")]
            self._connector_count = value
            self._round_due_ns = now_ns + ROUND_NS
            return [self._observed("connectors_counted", count=value), *self._begin_round(now_ns)]
        if asked.name == "working_status" and value == WorkingStatus.CHARGING:
            self._urgent.append(_read("connector_no", asked.connector))
        if asked.name == "connector_no":
            return [self._observed("connector_identified", connector=asked.connector, connector_no=value)]
        return []

    def _report(self, report: Report, now_ns: int) -> list[Action]:
        registers: dict[str, str | int | float] = {}
        for device in report.devices:
            for segment in device.segments:
                registers |= _decoded(segment.address, segment.words)
        actions: list[Action] = [
            self._observed("report", transaction_id=report.transaction_id, registers=registers)
        ]
        for connector in range(1, 5):
            status = registers.get(f"{connector}/working_status")
            if not isinstance(status, int):
                continue
            inserted = WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED
            if status == inserted and self._working_status.get(connector) != inserted:
                self._urgent.append(_write("hmac_key", _words("1/hmac_key", self._key), connector))
            self._working_status[connector] = status
        return actions + self._ask_next(now_ns)

    def _begin_round(self, now_ns: int) -> list[Action]:
        if self._waiting:
            return []  # the dispenser is still busy with the last round
        self._round += 1
        ac_input = self._ac_input(now_ns)
        self._waiting.append(_write("psu_running_mode", _words("psu_running_mode", PsuRunningMode.RUNNING)))
        self._waiting.append(_write("psu_mac", _words("psu_mac", self._psu_mac)))
        for connector in range(1, self._connector_count + 1):
            if self._round >= FIRST_ROUND_WITH_RATINGS:
                for name, value in RATINGS.items():
                    self._waiting.append(_write(name, _words(f"1/{name}", value), connector))
                self._waiting.append(_write("psu_port_available", (1,), connector))
            self._waiting.append(_read("working_status", connector))
        energy = _words("total_historic_input_energy", ac_input.energy_kwh)
        self._waiting.append(_write("total_historic_input_energy", energy))
        for quantity, values in ("voltage", ac_input.voltages_v), ("current", ac_input.currents_a):
            for phase, value in zip("abc", values, strict=True):
                name = f"ac_input_{quantity}_{phase}"
                self._waiting.append(_write(name, _words(name, value)))
        return self._ask_next(now_ns)

    def _ask_next(self, now_ns: int) -> list[Action]:
        queue = self._urgent or self._waiting
        if self._asked is not None or not queue:
            return []
        request = self._asked = queue.popleft()
        self._transaction_id = (self._transaction_id + 1) & 0xFFFF
        self._answer_due_ns = now_ns + ANSWER_TIMEOUT_NS
        if request.function == READ:
            return [ReadAsked(self.connection, self._transaction_id, request.address, request.count)]
        actions: list[Action] = [
            WriteAsked(self.connection, self._transaction_id, request.function, request.address, request.words)
        ]
        if request.name == "hmac_key":
            actions.append(self._observed("key_written", connector=request.connector))
        return actions

    def _observed(self, event: str, **details: Detail) -> Observed:
        return Observed(event, {"peer": self.peer, **details})


def _fits(answer: ReadAnswer | WriteAnswer | ExceptionAnswer, asked: _Request) -> bool:
    function = READ if isinstance(answer, ReadAnswer) else answer.function
    return function == asked.function


def _key_of(name: str, connector: int) -> str:
    return f"{connector}/{name}" if connector else name


def _words(key: str, value: Value) -> tuple[int, ...]:
    return encode(REGISTERS.by_key[key], value)


def _read(name: str, connector: int = 0) -> _Request:
    register = REGISTERS.by_key[_key_of(name, connector)]
    return _Request(READ, register.address, register.words, (), connector, name)


def _write(name: str, words: tuple[int, ...], connector: int = 0) -> _Request:
    register = REGISTERS.by_key[_key_of(name, connector)]
    # As the captures have it: 0x06 for u16, and 0x10, one value at a time, for the rest.
    function = WRITE_SINGLE if register.kind == "u16" else WRITE
    return _Request(function, register.address, register.words, words, connector, name)


def _decoded(address: int, words: tuple[int, ...]) -> dict[str, str | int | float]:
    """The registers that stand in a segment, by key; bytes as hex."""
    values: dict[str, str | int | float] = {}
    for register, _, position, count in REGISTERS.covered(address, len(words)):
        if count == register.words:
            value = decode(register, words[position : position + count])
            values[register.key] = value.hex() if isinstance(value, bytes) else value
    return values
