"""The Modbus side of the PSU model, for one dispenser: what is asked of it, and when (behaviour.md §9).

    connect ──► read 0x1015 ──► round 1 ──5 s──► round 2 ──5 s──► round 3 (from here on with the ratings) ──► …
                                report shows a plug-in ──► write that connector's key, before what else waits
                                the PSU changes        ──► `tell`, before what else waits

Rules:
- Pure: no socket, clock or randomness; `now_ns` and keys are given, what is to be done comes back as Actions.
- One request at a time: the next goes out when the last is answered. No answer for 5 s ends the connection.
- The order within a round is the one of the captures (protocol.md §2). Alarms that are set follow the MAC in
  the first round.
- A connector's GOOSE frames are told by the dispenser's MAC and its global number. Both are read, once, before
  the first key that is not the one that all have.
- A silent PSU asks nothing, but takes what comes; what it has missed follows.
"""

from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from ..io.modbus_adu import READ
from ..io.modbus_psu_codec import Answer, ExceptionAnswer, ReadAnswer, Report, WriteAnswer
from ..messages.types import WorkingStatus
from .actions import Action, Detail, DisconnectAsked, Observed, ReadAsked, WriteAsked
from .key_book import KeyBook
from .psu_state import PsuState
from .registers import RAW, Request, by_name, read, write

SECOND_NS = 1_000_000_000
ANSWER_TIMEOUT_NS = 5 * SECOND_NS

KEY = bytes.fromhex(
    "67e426560a70ca4a833c44b31270ca9355d87b020f578e1e9d1974c02fa6f6804c2fcbdf735e711cec085b93814716ad"
)
"""The key that a mock hands out which is not told otherwise (behaviour.md §9): a mock has no secrets."""

_LAST_OF_ROUND = "ac_input_current_c"
_INSERTED = WorkingStatus.STANDBY_WITH_CONNECTOR_INSERTED


class AcInput(Struct, frozen=True):
    """What the PSU draws from the grid."""

    voltages_v: tuple[float, float, float]
    currents_a: tuple[float, float, float]
    energy_kwh: float


class Keys(Struct, frozen=True):
    """Where a session's keys come from and go to."""

    book: KeyBook
    new: Callable[[], bytes]
    """The key of a plug-in."""


class _Identity(Struct):
    """How GOOSE knows a connector."""

    connector_no: int | None = None
    mac: bytes | None = None


class DispenserSession:
    """One connection. Every method gives the Actions that follow from it."""

    def __init__(
        self, connection: int, peer: str, *, psu: PsuState, keys: Keys, ac_input: Callable[[int], AcInput]
    ) -> None:
        """`ac_input` gives the values at a time in ns."""
        self.connection = connection
        self.peer = peer
        self.connector_count = 0
        """0 until it is known."""
        self._psu = psu
        self._keys = keys
        self._ac_input = ac_input
        self._urgent: deque[Request] = deque()
        """Goes before what waits."""
        self._waiting: deque[Request] = deque()
        self._asked: Request | None = None
        self._transaction_id = -1
        self._answer_due_ns: int | None = None
        self._round = 0
        self._round_due_ns: int | None = None
        self._has_ended = False
        self._working_status: dict[int, int] = {}
        """Local number to what the last report said."""
        self._identities: dict[int, _Identity] = {}
        self._last_keys: dict[int, bytes] = {}
        """By local number: what was written last."""

    @property
    def due_ns(self) -> int | None:
        """When to call `timer`."""
        round_due_ns = self._round_due_ns
        if round_due_ns is not None and round_due_ns < self._psu.silent_until_ns:
            round_due_ns = None  # `resume` sees to it
        return min((due for due in (self._answer_due_ns, round_due_ns) if due is not None), default=None)

    def connected(self, now_ns: int) -> list[Action]:
        """The dispenser connected."""
        self._waiting.append(read("charging_connectors_count"))
        return [self._observed("connected"), *self._ask_next(now_ns)]

    def disconnected(self, reason: str) -> list[Action]:
        """The connection is gone."""
        return [self._observed("disconnected", reason=reason)]

    def end(self, reason: str, *, reset: bool = False) -> list[Action]:
        """Close the connection."""
        self._has_ended = True
        self._answer_due_ns = self._round_due_ns = None
        return [DisconnectAsked(self.connection, reason, reset)]

    def timer(self, now_ns: int) -> list[Action]:
        """It is `due_ns` or later."""
        if self._answer_due_ns is not None and now_ns >= self._answer_due_ns:
            return self.end("no answer to a request for 5 s")
        return self._begin_due_round(now_ns)

    def resume(self, now_ns: int) -> list[Action]:
        """The PSU is no longer silent."""
        return [*self._ask_next(now_ns), *self._begin_due_round(now_ns)]

    def tell(self, requests: Iterable[Request], now_ns: int) -> list[Action]:
        """Send these before what else waits."""
        for request in requests:
            if request.name != RAW:
                # An older value of the same register that still waits would undo it.
                same = (request.address, request.function)
                kept = (waiting for waiting in self._waiting if (waiting.address, waiting.function) != same)
                self._waiting = deque(kept)
            self._urgent.append(request)
        return self._ask_next(now_ns)

    def write_key(self, connector: int, key: bytes | None, now_ns: int) -> list[Action]:
        """Write a connector's key; None: the last one again, or a new one if there is none."""
        if key is None:
            key = self._last_keys.get(connector) or self._keys.new()
        self._queue_key(connector, key)
        return self._ask_next(now_ns)

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
                actions += self._key_acknowledged(asked.connector, now_ns)
            case WriteAnswer() if asked.name == RAW:
                actions.append(self._observed("write_acknowledged", address=asked.address))
            case WriteAnswer() if asked.name == _LAST_OF_ROUND:
                actions.append(self._observed("round_done", round=self._round))
        return actions + self._ask_next(now_ns)

    def _refused(self, asked: Request, exception_code: int) -> list[Action]:
        refused = self._observed(
            "request_refused",
            function=asked.function,
            address=asked.address,
            register=asked.name,
            exception_code=exception_code,
        )
        if self.connector_count:
            return [refused]
        return [refused, *self.end("the number of connectors cannot be read")]

    def _read_answered(self, asked: Request, words: tuple[int, ...], now_ns: int) -> list[Action]:
        value = words[0] if words else 0
        match asked.name:
            case "charging_connectors_count":
                if not 1 <= value <= 4:
                    return self.end(f"{value} connectors, allowed are 1 to 4")
                self.connector_count = value
                self._round_due_ns = now_ns + self._psu.round_ns
                return [self._observed("connectors_counted", count=value), *self._begin_round(now_ns)]
            case "working_status" if value == WorkingStatus.CHARGING:
                self._urgent.append(read("connector_no", asked.connector))
            case "connector_no":
                self._identity(asked.connector).connector_no = value
                return [self._observed("connector_identified", connector=asked.connector, connector_no=value)]
            case "mac_address":
                mac = b"".join(word.to_bytes(2, "big") for word in words)
                self._identity(asked.connector).mac = mac
                return [self._observed("mac_read", connector=asked.connector, mac=mac.hex(":"))]
        return []

    def _report(self, report: Report, now_ns: int) -> list[Action]:
        registers: dict[str, str | int | float] = {}
        for device in report.devices:
            for segment in device.segments:
                registers |= by_name(segment.address, segment.words)
        actions: list[Action] = [
            self._observed("report", transaction_id=report.transaction_id, registers=registers)
        ]
        for connector in range(1, 5):
            status = registers.get(f"{connector}/working_status")
            if not isinstance(status, int):
                continue
            if status == _INSERTED and self._working_status.get(connector) != _INSERTED:
                self._queue_key(connector, self._keys.new())
            self._working_status[connector] = status
        return actions + self._ask_next(now_ns)

    # --- keys ------------------------------------------------------------------------------------------------

    def _identity(self, connector: int) -> _Identity:
        return self._identities.setdefault(connector, _Identity())

    def _queue_key(self, connector: int, key: bytes) -> None:
        identity = self._identity(connector)
        if key != KEY and any(key):
            if identity.connector_no is None:
                self._urgent.append(read("connector_no", connector))
            if identity.mac is None:
                self._urgent.append(read("mac_address", connector))
        self._urgent.append(write("hmac_key", key, connector))

    def _key_written(self, request: Request) -> Action:
        connector, identity = request.connector, self._identity(request.connector)
        key = b"".join(word.to_bytes(2, "big") for word in request.words)
        if any(key):  # else it is no key, and what was written before stays in use
            self._last_keys[connector] = key
            if identity.connector_no is not None and identity.mac is not None:
                self._keys.book.written(identity.mac, identity.connector_no, key)
        kind = "zero" if not any(key) else "fixed" if key == KEY else "own"
        return self._observed("key_written", connector=connector, key=kind)

    def _key_acknowledged(self, connector: int, now_ns: int) -> list[Action]:
        identity = self._identity(connector)
        if identity.connector_no is not None and identity.mac is not None:
            self._keys.book.acknowledged(identity.mac, identity.connector_no, now_ns)
        return [self._observed("key_acknowledged", connector=connector)]

    # --- asking ----------------------------------------------------------------------------------------------

    def _begin_due_round(self, now_ns: int) -> list[Action]:
        if self._round_due_ns is None or now_ns < max(self._round_due_ns, self._psu.silent_until_ns):
            return []
        round_ns = self._psu.round_ns
        self._round_due_ns += round_ns * (1 + (now_ns - self._round_due_ns) // round_ns)
        return self._begin_round(now_ns)

    def _begin_round(self, now_ns: int) -> list[Action]:
        if self._waiting:
            return []  # the dispenser is still busy with the last round
        self._round += 1
        psu = self._psu
        ac_input = self._ac_input(now_ns)
        self._waiting.append(write("psu_running_mode", psu.running_mode))
        self._waiting.append(write("psu_mac", psu.mac))
        if self._round == 1:
            self._waiting.extend(write(name, value) for name, value in psu.alarms.items())
        for connector in range(1, self.connector_count + 1):
            if self._round >= psu.first_round_with_ratings:
                for name, value in psu.ratings_at(connector).items():
                    self._waiting.append(write(name, value, connector))
                self._waiting.append(write("psu_port_available", psu.port_is_available(connector), connector))
            self._waiting.append(read("working_status", connector))
        self._waiting.append(write("total_historic_input_energy", ac_input.energy_kwh))
        for quantity, values in ("voltage", ac_input.voltages_v), ("current", ac_input.currents_a):
            for phase, value in zip("abc", values, strict=True):
                self._waiting.append(write(f"ac_input_{quantity}_{phase}", value))
        return self._ask_next(now_ns)

    def _ask_next(self, now_ns: int) -> list[Action]:
        queue = self._urgent or self._waiting
        if self._has_ended or self._asked is not None or not queue or now_ns < self._psu.silent_until_ns:
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
            actions.append(self._key_written(request))
        return actions

    def _observed(self, event: str, **details: Detail) -> Observed:
        return Observed(event, {"peer": self.peer, **details})


def _fits(answer: ReadAnswer | WriteAnswer | ExceptionAnswer, asked: Request) -> bool:
    function = READ if isinstance(answer, ReadAnswer) else answer.function
    return function == asked.function
