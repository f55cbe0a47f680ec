"""The Modbus conversation of a log as TCP packets that Wireshark decodes the right way round.

The dispenser opens the TCP connection, and on it the PSU asks (protocol.md §1). Wireshark takes whoever sits on
port 502 for the one who answers: on the wire that is the PSU, so that it shows every request as a response and
every response as a request. Here the dispenser's end has port 502, and the PSU's one of its own for each
connection (50001, 50002, …; another run of the driver goes on counting): requests show as Query, answers as
Response, and each connection is a stream of its own. Who really connected to whom is in a comment on each
connection's first packet.

What is recorded of a connection is requests, answers, reports, its beginning and its end. Packets, their
numbering and their MAC addresses are made up, and so is the dispenser's IP address, since it is not recorded.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_address

from ..io.modbus_codec import DispenserCodec
from ..io.tls_handshake import CLOSED
from ..messages.config import Config
from ..messages.inputs import (
    Input,
    ModbusRequestRefused,
    PsuConnected,
    PsuConnectFailed,
    PsuDisconnected,
    RegistersRead,
    RegistersWritten,
    UnexpectedPduReceived,
)
from ..messages.outputs import (
    AnyOutput,
    ExceptionAnswered,
    PsuDisconnectRequested,
    ReadAnswered,
    ReportSent,
    WriteAnswered,
)
from .pcap_tcp import Endpoint, TcpConnection

MODBUS_PORT = 502
_FIRST_PSU_PORT = 50_001
_PSU_PORTS = 15_000

# Addresses that are nobody's: for documentation (RFC 7042, RFC 5737, RFC 3849).
_DISPENSER_MAC = bytes.fromhex("00005e005301")
_PSU_MAC = bytes.fromhex("00005e005302")
_ADDRESSES = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}

_MASKED = "The journal keeps the first 10 bytes only: what is not understood may hold a key. The rest is zeros."

Sink = Callable[[bytes, bool, str], None]
"""Takes a frame, whether the dispenser received it, and a comment."""

MODBUS_OUTPUTS = (ReadAnswered, WriteAnswered, ExceptionAnswered, ReportSent, PsuDisconnectRequested)
"""What `ModbusConversation.performed` has a use for."""

Request = RegistersRead | RegistersWritten | ModbusRequestRefused | UnexpectedPduReceived


class ModbusConversation:
    """The packets of one run's Modbus connections. Give it the turns in order."""

    def __init__(self, config: Config, sink: Sink, connections_before: int = 0) -> None:
        """`connections_before`: so many were there in former runs."""
        self.connections = connections_before
        """How many there were, with those of former runs."""
        self._before = connections_before
        self._sink = sink
        self._config = config
        self._codec = DispenserCodec()
        self._addresses = _addresses(config.psu_ip)
        self._number = 0
        """Of the present connection; 0: there is none."""
        self._tcp: TcpConnection | None = None
        self._comment = ""
        """For the next packet."""

    def note(self, comment: str) -> None:
        """Say this at the next packet."""
        self._comment = f"{self._comment}\n{comment}" if self._comment else comment

    def start_with(self, connection: int) -> None:
        """A log that begins in mid-run, with this connection standing."""
        self._begin(connection)
        self.note(f"{self._roles(connection)}\nIts beginning is not in the log.")

    def received(self, message: Input) -> None:
        """An Input."""
        match message:
            case PsuConnected(connection=connection):
                self.note(self._roles(connection))
                self._send(self._begin(connection).opened())
            case PsuConnectFailed(connection=connection, reason=reason):
                self.note(f"{self._roles(connection)}\nNo connection: {reason}")
                self._send(self._begin(connection).refused(answered="refused" in reason))
                self._end()
            case PsuDisconnected(connection=connection, reason=reason):
                self._disconnected(connection, reason)
            case RegistersRead() | RegistersWritten():
                self._request(message)
            case ModbusRequestRefused(reason=reason):
                self.note(f"Refused: {reason}. {_MASKED}")
                self._request(message)
            case UnexpectedPduReceived():
                self.note(f"Not expected from a PSU, and not answered. {_MASKED}")
                self._request(message)
            case _:
                pass

    def performed(self, output: AnyOutput) -> None:
        """An Output. As in the live link, what is for another connection than the present one is ignored."""
        match output:
            case ReadAnswered() | WriteAnswered() | ExceptionAnswered() | ReportSent():
                if self._tcp is not None and output.connection == self._number:
                    self._send(self._tcp.sent(self._codec.encode(output), by_client=True))
            case PsuDisconnectRequested(connection=connection, reason=reason):
                if self._tcp is not None and connection == self._number:
                    self._close(f"The dispenser closes: {reason}")
            case _:
                pass

    def finish(self) -> None:
        """The driver said goodbye: it closes its connection."""
        if self._tcp is not None:
            self._close("The dispenser closes: the driver ends")

    # --- inside --------------------------------------------------------------------------------------------

    def _begin(self, connection: int) -> TcpConnection:
        dispenser, psu = self._addresses
        self._number = connection
        # The numbers begin anew with each run. What has the ports of a former connection would pass for its
        # retransmission.
        self.connections = self._before + connection
        psu_port = _FIRST_PSU_PORT + (self.connections - 1) % _PSU_PORTS
        self._tcp = TcpConnection(
            Endpoint(_DISPENSER_MAC, dispenser, MODBUS_PORT),
            Endpoint(_PSU_MAC, psu, psu_port),
            initial_sequence=self.connections << 16,
        )
        return self._tcp

    def _end(self) -> None:
        self._number = 0
        self._tcp = None

    def _request(self, message: Request) -> None:
        if self._tcp is None or message.connection != self._number:
            # Its beginning fell into a gap.
            self.start_with(message.connection)
        assert self._tcp is not None  # noqa: S101 - start_with has set it
        self._send(self._tcp.sent(message.adu, by_client=False))

    def _disconnected(self, connection: int, reason: str) -> None:
        if self._tcp is None or connection != self._number:
            return
        if reason.startswith(CLOSED):
            self.note(f"Connection {connection}: {reason}")
            self._send(self._tcp.closed(by_client=False))
            self._end()
        elif "reset" in reason.lower():
            self.note(f"Connection {connection}: {reason}")
            self._send(self._tcp.reset(by_client=False))
            self._end()
        else:
            self._close(f"Connection {connection}: {reason}")

    def _close(self, comment: str) -> None:
        if self._tcp is not None:
            self.note(comment)
            self._send(self._tcp.closed(by_client=True))
        self._end()

    def _send(self, frames: Iterable[tuple[bool, bytes]]) -> None:
        for by_client, frame in frames:
            comment, self._comment = self._comment, ""
            self._sink(frame, not by_client, comment)

    def _roles(self, connection: int) -> str:
        config = self._config
        secured = ", in TLS" if config.tls_enabled else ""
        return (
            f"Connection {connection}: the dispenser (TCP client) connected to the PSU (TCP server) at "
            f"{config.psu_ip}:{config.psu_port}{secured}. On it the PSU asks and the dispenser answers; so the "
            f"dispenser's end is shown with port {MODBUS_PORT}, where Wireshark looks for whoever answers."
        )


def _addresses(psu_ip: str) -> tuple[str, str]:
    """The dispenser's and the PSU's."""
    try:
        psu = ip_address(psu_ip)
    except ValueError:  # a host name
        return _ADDRESSES[4]
    return _ADDRESSES[psu.version][0], str(psu)
