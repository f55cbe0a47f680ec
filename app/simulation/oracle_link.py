"""Shadow of the link to the PSU and of what the PSU wrote (behaviour.md §2, protocol.md §2)."""

import math

from ...messages.config import Config
from ...messages.inputs import RegistersWritten
from ...messages.registers import Owner, Register, RegisterMap, decode, zeros
from .oracle import EARLY_NS, SECOND_NS, fail

KEEP_NS = 10 * SECOND_NS
"""How long MAC and keys of a lost connection may be used for sending."""
REPORT_NS = SECOND_NS
BACKOFF_NS = (SECOND_NS // 100, SECOND_NS)
"""The shortest, from which it doubles, and the longest."""
STABLE_NS = 10 * SECOND_NS
"""READY for so long: the backoff begins anew."""
Ratings = tuple[float, float, float, float, float]
_RATINGS = (
    "max_rated_psu_voltage",
    "min_rated_psu_voltage",
    "max_rated_psu_current",
    "min_rated_psu_current",
    "rated_output_power_psu",
)


class LinkShadow:
    """The connection, and the PSU's registers."""

    def __init__(self, config: Config) -> None:
        self.map = RegisterMap(len(config.connectors))
        self.alarm_registers = tuple(r for r in self.map.registers if r.alarm)
        self.silence_ns = int(config.modbus_timeout_s * SECOND_NS)
        self._parts: dict[tuple[int, int], list[tuple[Register, int, int, int]]] = {}
        self._rating_of = {
            f"{number}/{name}": number for number in range(1, len(config.connectors) + 1) for name in _RATINGS
        }
        self.connection = 0
        self.restart()

    def restart(self) -> None:
        """A new process."""
        self.connection = 0
        self.connecting = False
        self.connected = False
        self.ready = False
        self.ready_ns = 0
        self.backoff_ns: int | None = BACKOFF_NS[0]
        """Before the next attempt but one; None: left open."""
        self.retry_ns: int | None = None
        """When the next attempt is due; None: left open."""
        self.runs_said = False
        self.heard_ns = 0
        """When the last complete ADU came."""
        self.heard_for_sure_ns = 0
        """The same, without those whose turn failed."""
        self.reported_ns = 0
        self.next_transaction = 0
        self.losses: dict[int, int] = {}
        """Connections that were lost, and when."""
        self.registers: dict[str, tuple[int, ...]] = {}
        """What the PSU wrote on this connection."""

    # --- the connection --------------------------------------------------------------------------------------

    def is_current(self, connection: int) -> bool:
        """Whether what comes from there counts."""
        return connection == self.connection and self.connected

    def requested(self, connection: int, now_ns: int, slack_ns: int) -> None:
        """The driver wants a connection."""
        if self.retry_ns is not None and not self.retry_ns <= now_ns + EARLY_NS <= self.retry_ns + slack_ns:
            fail(
                "backoff", f"connection {connection} {(now_ns - self.retry_ns) / 1e9:+.3f} s beside the backoff"
            )
        self.retry_ns = None
        if self.connecting or self.connected:
            fail("connected_twice", f"connection {connection} besides {self.connection}")
        if connection != self.connection + 1:
            fail("connection_number", f"{connection} after {self.connection}")
        self.connection, self.connecting = connection, True

    def stands(self, connection: int, now_ns: int) -> bool:
        """The connection that was asked for."""
        if connection != self.connection or not self.connecting:
            return False
        self.connecting, self.connected = False, True
        self.heard(now_ns)
        self.reported_ns = now_ns
        self.next_transaction, self.runs_said = 0, False
        return True

    def heard(self, now_ns: int) -> None:
        """A complete ADU came."""
        self.heard_ns = self.heard_for_sure_ns = now_ns

    def given_up(self, now_ns: int) -> None:
        """The driver closes the connection for its silence."""
        if now_ns + EARLY_NS < self.heard_for_sure_ns + self.silence_ns:
            fail("link_given_up_early", f"connection {self.connection}")

    def becomes_ready(self, now_ns: int) -> bool:
        """The PSU's MAC is known. True if that is new on this connection."""
        if self.ready:
            return False
        self.ready, self.ready_ns = True, now_ns
        return True

    def lost(self, connection: int, now_ns: int, *, in_failure: bool = False) -> bool:
        """The connection failed, or was never made. True if it counts."""
        if connection != self.connection or not (self.connecting or self.connected):
            return False
        if self.connected:
            self.losses[connection] = now_ns
        self._plan_retry(now_ns, in_failure=in_failure)
        self.connecting = self.connected = self.ready = False
        self.registers = {}
        return True

    def _plan_retry(self, now_ns: int, *, in_failure: bool) -> None:
        """When it has to be tried again. In a turn that failed it is left open."""
        is_stable = self.ready and now_ns - self.ready_ns >= STABLE_NS
        if in_failure:
            self.backoff_ns = None if is_stable else self.backoff_ns
            self.retry_ns = None
            return
        backoff_ns = BACKOFF_NS[0] if is_stable else self.backoff_ns
        self.retry_ns = None if backoff_ns is None else now_ns + backoff_ns
        self.backoff_ns = None if backoff_ns is None else min(2 * backoff_ns, BACKOFF_NS[1])

    def forgotten(self, connection: int, now_ns: int) -> None:
        """Nothing is sent any more with MAC and keys of this connection and former ones."""
        if self.is_current(connection):
            fail("keys_forgotten_early", f"connection {connection} stands")
        if any(now_ns + EARLY_NS < at_ns + KEEP_NS for old, at_ns in self.losses.items() if old <= connection):
            fail("keys_forgotten_early", f"connection {connection}")
        for old in [old for old in self.losses if old <= connection]:
            del self.losses[old]

    def reported(self, now_ns: int, slack_ns: int, *, is_due: bool) -> None:
        """A report goes out: every second, and at once when something changed; the second then starts anew."""
        since_ns = now_ns - self.reported_ns
        is_early = since_ns + EARLY_NS < REPORT_NS and not is_due
        if is_early or since_ns > REPORT_NS + slack_ns:
            fail("report_interval", f"{since_ns / SECOND_NS:.3f} s after the one before it")
        self.reported_ns = now_ns

    def overdue(self, late_ns: int) -> None:
        """InvariantViolated if the driver should have done something by itself at this time, and did not."""
        if self.retry_ns is not None and late_ns > self.retry_ns:
            fail("backoff", f"no connection after {self.connection}")
        if any(late_ns > lost_ns + KEEP_NS for lost_ns in self.losses.values()):
            fail("keys_kept", f"of connection {min(self.losses)}, after more than 10 s")
        if self.connected and late_ns > self.heard_ns + self.silence_ns:
            fail("link_silence_ignored", f"connection {self.connection}")
        if self.connected and late_ns > self.reported_ns + REPORT_NS:
            fail("report_missing", "none for more than a second")

    # --- registers -------------------------------------------------------------------------------------------

    def parts(self, address: int, count: int) -> list[tuple[Register, int, int, int]]:
        """What registers a range covers; nothing if it wraps."""
        found = self._parts.get((address, count))
        if found is None:
            wraps = address + count > 0x10000
            found = self._parts[address, count] = [] if wraps else list(self.map.covered(address, count))
        return found

    def written(self, message: RegistersWritten) -> list[str]:
        """Registers of the PSU that have another value now, and psu_mac and psu_running_mode whenever they were
        written."""
        changed = []
        for register, word, position, count in self.parts(message.address, len(message.words)):
            key = register.key
            if register.owner is not Owner.PSU or register.name == "hmac_key":
                continue
            old = self.registers.get(key)
            if count == register.words:
                new = (
                    message.words if count == len(message.words) else message.words[position : position + count]
                )
            else:
                whole = old or zeros(register)
                new = whole[:word] + message.words[position : position + count] + whole[word + count :]
            if new != old or key in ("psu_mac", "psu_running_mode"):
                self.registers[key] = new
                changed.append(key)
        return changed

    def is_rating(self, key: str) -> int:
        """The connector whose rating this register is; 0: none."""
        return self._rating_of.get(key, 0)

    def ratings(self, number: int) -> Ratings:
        """Max and min V, max and min A, kW; 0 for what is no number, or less than 0 (no power)."""
        values = []
        for name in _RATINGS:
            register = self.map.by_key[f"{number}/{name}"]
            value = decode(register, self.registers.get(register.key) or zeros(register))
            is_amount = isinstance(value, float) and math.isfinite(value) and value > 0
            values.append(float(value) if is_amount else 0.0)
        return (values[0], values[1], values[2], values[3], values[4])

    @property
    def mac(self) -> bytes:
        """The PSU's MAC as it wrote it; empty: none."""
        words = self.registers.get("psu_mac", ())
        raw = b"".join(word.to_bytes(2, "big") for word in words)
        return raw if any(raw) else b""

    @property
    def runs(self) -> bool:
        """Whether the PSU reports RUNNING."""
        return self.registers.get("psu_running_mode") == (1,)

    def alarms(self) -> dict[tuple[str, str], str]:
        """Errors of the PSU: (type, sub_type) to message (behaviour.md §3)."""
        errors = {}
        for register in self.alarm_registers:
            words = self.registers.get(register.key)
            if words is None or register.alarm is None:
                continue
            value = decode(register, words)
            if not isinstance(value, int) or value == 0:
                continue
            alarm = register.alarm
            if alarm.is_flags:
                what = f"Flags: 0x{value:0{4 * register.words}x}"
            else:
                what = f"AlarmState: {'ALARM' if value == 1 else 'UNKNOWN'}"
            message = f"Category: {alarm.category}; Subcategory: {alarm.name}; {what}"
            errors["VendorWarning", register.key] = message
        return errors
