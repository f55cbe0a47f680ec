"""The GOOSE port on an Ethernet interface: scapy's raw socket, used for raw bytes (architecture.md §6).

- The kernel strips a VLAN tag before the socket's filter sees the frame, so the ethertype stands at offset 12
  with and without a tag; `receive` puts the tag back.
- The filter keeps out what this machine sends, so that our own frames cost nothing.
- A frame costs one system call while more are waiting, because of floods: what stands in the socket's buffer is
  taken before anything is waited for, and by the socket itself, as scapy's recv_raw takes twice as long.
"""

import ctypes
import errno
import fcntl
import socket
import struct
import sys

# Only these modules: scapy.all takes 0.8 s.
from scapy.arch.linux import L2Socket
from scapy.config import conf
from scapy.data import MANUFDB
from scapy.packet import Raw

from .goose_codec import ETHERTYPE_GOOSE
from .goose_port import GoosePortError, ReadableWait

_SIOCGIFHWADDR = 0x8927
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8

_AUXDATA = struct.Struct("IIIHHHH")
"""struct tpacket_auxdata: status, length, captured length, two offsets, TCI and ethertype of the tag."""
_AUXDATA_BYTES = socket.CMSG_SPACE(_AUXDATA.size)
_VLAN_VALID = 1 << 4
_MAX_FRAME_BYTES = 1 << 16

_ETHERTYPE_VLAN = 0x8100
"""Of a tag whose ethertype an old kernel does not tell."""

_BUFFER_BYTES = 1 << 20
"""scapy's own 64 KiB keep only about 150 frames of a burst (architecture.md §6)."""

# scapy reads the names of all makers of network adapters: 11 MB, and nothing here looks for one.
MANUFDB.d.clear()
sys.modules.pop("scapy.libs.manuf", None)

_ARPHRD_ETHER = 1
if _ARPHRD_ETHER not in conf.l2types:
    # Without its layer modules scapy knows no layer for Ethernet and warns each time; we only want bytes.
    conf.l2types.register_num2layer(_ARPHRD_ETHER, Raw)

# Classic BPF: (operation, jump if true, jump if false, operand).
_ACCEPT_NOTHING = ((0x06, 0, 0, 0),)
_ACCEPT_GOOSE = (
    (0x28, 0, 0, 12),  # A = half word at 12, the ethertype
    (0x15, 0, 3, ETHERTYPE_GOOSE),  # equal: next, else: drop
    (0x28, 0, 0, 0xFFFFF004),  # A = the packet's type (SKF_AD_PKTTYPE)
    (0x15, 1, 0, socket.PACKET_OUTGOING),  # equal: drop, else: next
    (0x06, 0, 0, 0xFFFFFFFF),  # accept the whole frame
    (0x06, 0, 0, 0),  # drop
)


def open_af_packet_port(interface: str) -> "AfPacketPort":
    """The port on this interface. GoosePortError."""
    names = [name for _, name in socket.if_nameindex()]
    if interface not in names:
        msg = f"no Ethernet interface {interface!r}; there are: {', '.join(sorted(names))}"
        raise GoosePortError(msg)
    if _hardware_type(interface) != _ARPHRD_ETHER:
        msg = f"{interface} is no Ethernet interface"
        raise GoosePortError(msg)
    try:
        return AfPacketPort(interface)
    except PermissionError:
        msg = (
            f"no permission to send raw Ethernet frames on {interface}: run with CAP_NET_RAW "
            "(root, or systemd's AmbientCapabilities=CAP_NET_RAW); for development without it: udp:PORT"
        )
        raise GoosePortError(msg) from None
    except OSError as error:
        hint = f"; bring it up: ip link set {interface} up" if error.errno == errno.ENETDOWN else ""
        msg = f"cannot open Ethernet interface {interface}: {error.strerror}{hint}"
        raise GoosePortError(msg) from None


def _hardware_type(interface: str) -> int:
    """ARPHRD_… of an interface that there is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # struct ifreq: the name (16 bytes), then a sockaddr, whose family is the hardware type.
        request = struct.pack("16s24x", interface.encode())
        return int(struct.unpack_from("16xH", fcntl.ioctl(any_socket, _SIOCGIFHWADDR, request))[0])


class AfPacketPort:
    """GoosePort on an Ethernet interface."""

    def __init__(self, interface: str) -> None:
        # Promiscuous, because an adapter with a VLAN filter otherwise drops the tagged frames of a VLAN that
        # the kernel has no interface for (a field installation uses VLAN 200, protocol.md §3.1).
        self._socket = L2Socket(iface=interface, promisc=True)
        self._raw: socket.socket = self._socket.ins
        try:
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._raw.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            self._raw.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 0)  # scapy's; nobody reads it
            # Until the filter stands, everything arrives. Let nothing in, throw away what came, then let GOOSE
            # in: so the first frame received is one that passed the filter.
            _attach_filter(self._raw, _ACCEPT_NOTHING)
            _drain(self._raw)
            _attach_filter(self._raw, _ACCEPT_GOOSE)
            self.take_drop_count()  # what the small buffer could not take before the filter stood
        except OSError:
            self._socket.close()
            raise
        self.mac: bytes = self._raw.getsockname()[4]
        self._wait = ReadableWait(self._raw.fileno())

    def send(self, frame: bytes) -> None:
        """Send now. OSError (BlockingIOError if the interface takes no more)."""
        self._raw.send(frame, socket.MSG_DONTWAIT)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next GOOSE frame, with its VLAN tag; None after `timeout_s` or an interrupt."""
        frame = self._take()
        if frame is None and self._wait.wait(timeout_s):
            frame = self._take()
        return frame

    def _take(self) -> bytes | None:
        """The next frame if there is one."""
        try:
            frame, auxiliary, _, _ = self._raw.recvmsg(_MAX_FRAME_BYTES, _AUXDATA_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        for level, kind, data in auxiliary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                status, _, _, _, _, tci, tag = _AUXDATA.unpack(data)
                if status & _VLAN_VALID:
                    return frame[:12] + struct.pack(">HH", tag or _ETHERTYPE_VLAN, tci) + frame[12:]
        return frame

    def interrupt(self) -> None:
        """Let `receive` return None."""
        self._wait.interrupt()

    def take_drop_count(self) -> int:
        """Frames lost since the last call because the socket's buffer was full."""
        statistics = self._raw.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        _, drops = struct.unpack("II", statistics)
        return int(drops)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._wait.close()


def _attach_filter(raw: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    instructions = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(instructions)
    # struct sock_fprog: the number of instructions, and where they are; the kernel copies them.
    fprog = struct.pack("HP", len(program), ctypes.addressof(buffer))
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def _drain(raw: socket.socket) -> None:
    try:
        while True:
            raw.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass
