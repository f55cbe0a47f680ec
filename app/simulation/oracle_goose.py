"""Shadow of a connector's GOOSE publisher: what has to be issued, and when (behaviour.md §1, §2;
protocol.md §3.3)."""

from collections.abc import Sequence

from ...messages.outputs import PowerRequested, StopRequested
from ...messages.types import PowerRequestMode, StopReason
from .oracle import STOP, Content, fail
from .oracle_connector import ConnectorShadow
from .oracle_table import RUNNING

Message = PowerRequested | StopRequested
_LAST_ST_NUM = 4_294_967_295


class GooseShadow:
    """MAC, key and the message that is being repeated."""

    def __init__(self, connector: ConnectorShadow, *, signs: bool) -> None:
        self._connector = connector
        self._signs = signs
        self.restart()

    def restart(self) -> None:
        """A new process: nothing is known, stNum starts anew."""
        self.mac = b""
        self.mac_connection = 0
        self._mac_blanked = False
        """The PSU wrote zeros: it is left open whether the same MAC then becomes known anew."""
        self.key_connection = 0
        self.issued: Content | None = None
        self._st_num = 0
        self._must = False
        self._may = False

    @property
    def can_send(self) -> bool:
        """Whether there is what a message needs."""
        return bool(self.mac) and (self.key_connection > 0 or not self._signs)

    # --- events ----------------------------------------------------------------------------------------------

    def key_written(self, connection: int) -> None:
        """A new key applies at once."""
        self.key_connection = connection
        self._must, self._may = self._must or self._signs, True

    def mac_written(self, mac: bytes, connection: int) -> None:
        """The PSU told its MAC."""
        self._must = self._must or mac != self.mac
        self._may = self._may or connection != self.mac_connection or self._mac_blanked
        self.mac, self.mac_connection, self._mac_blanked = mac, connection, False

    def mac_blanked(self) -> None:
        """The PSU wrote zeros in its MAC's place, which is no MAC."""
        self._mac_blanked = True

    def stop_again(self, *, is_needed: bool) -> None:
        """A stop request is issued in this turn, whatever is being repeated; or it may be."""
        self._must, self._may = self._must or is_needed, True

    def forgotten(self, connection: int) -> None:
        """MAC and keys of that connection and former ones are used no more."""
        if self.mac_connection <= connection:
            self.mac, self.mac_connection = b"", 0
        if self.key_connection <= connection:
            self.key_connection = 0

    def silenced(self) -> None:
        """The driver says that the message is repeated no more."""
        if self.can_send:
            fail("silenced", f"connector {self._connector.number} with key and MAC")
        self.issued = None

    # --- the check -------------------------------------------------------------------------------------------

    def check(self, made: Sequence[Message], utc_ns: int) -> None:
        """The messages of a turn. InvariantViolated."""
        wanted = self._connector.content()
        needed = self.can_send and (self._must or self.issued != wanted)
        allowed, self._must, self._may = needed or self._may, False, False
        where = f"connector {self._connector.number}"
        if len(made) > 1:
            fail("goose_twice", f"{where}: {len(made)} messages in a turn")
        if not made:
            if needed:
                name = "stop_missing" if wanted == STOP else "request_missing"
                fail(name, f"{where}: {self.issued} is being repeated, has to be {wanted}")
            if self.issued is not None and not self.can_send:
                fail("not_silenced", f"{where} repeats {self.issued} without MAC or key")
            return
        message = made[0]
        content = self._content_of(message)
        self._check_power(content, where)
        if content != wanted:
            name = "stop_missing" if wanted == STOP else "wrong_request"
            fail(name, f"{where}: {content}, has to be {wanted}")
        if not self.mac:
            fail("request_before_mac", where)
        if not self.can_send:
            fail("request_without_key", where)
        if not allowed:
            fail("goose_repeated", f"{where}: {content} again, and nothing has changed")
        self._check_header(message, utc_ns, where)
        self.issued = content

    def _check_power(self, content: Content, where: str) -> None:
        """The first law."""
        _, voltage_v, current_a = content
        if voltage_v == 0 and current_a == 0:
            return
        connector = self._connector
        if connector.phase is not RUNNING or not connector.exports or connector.stopped:
            fail("power_not_asked_for", f"{where}: {content} in {connector.phase}")
        if connector.setpoint is None:
            fail("stale_setpoint", f"{where}: {content}, no setpoint since the last Off")
        max_v, _, max_a, _ = connector.ratings
        if voltage_v > max_v or current_a > max_a * 1.0000001:
            fail("beyond_capabilities", f"{where}: {content}, at most {max_v} V {max_a} A")

    def _check_header(self, message: Message, utc_ns: int, where: str) -> None:
        self._st_num = 1 if self._st_num == _LAST_ST_NUM else self._st_num + 1
        if message.st_num != self._st_num:
            fail("st_num", f"{where}: {message.st_num}, has to be {self._st_num}")
        if message.dst != self.mac:
            fail("wrong_mac", f"{where}: to {message.dst.hex()}, not {self.mac.hex()}")
        if message.connector_no != self._connector.global_no or message.t_ns != utc_ns:
            fail("goose_header", f"{where}: {message}")

    @staticmethod
    def _content_of(message: Message) -> Content:
        if isinstance(message, StopRequested):
            if message.reason is not StopReason.NORMAL:
                fail("stop_reason", f"connector {message.connector}: {message.reason}")
            return STOP
        if message.mode is not PowerRequestMode.CONSTANT_CURRENT:
            fail("request_mode", f"connector {message.connector}: {message.mode}")
        return (message.requirement_type, message.voltage_v, message.current_a)
