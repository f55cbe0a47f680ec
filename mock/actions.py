"""What the PSU model wants done: the only thing that comes out of it."""

from msgspec import Struct

from ..messages.goose import PowerRequestReply

Detail = str | int | float | bool | None | tuple[int, ...] | dict[str, str | int | float]


class ReadAsked(Struct, frozen=True):
    """Send a Modbus read request."""

    connection: int
    transaction_id: int
    address: int
    count: int


class WriteAsked(Struct, frozen=True):
    """Send a Modbus write request."""

    connection: int
    transaction_id: int
    function: int
    """0x06 or 0x10."""
    address: int
    words: tuple[int, ...]


class BytesAsked(Struct, frozen=True):
    """Send bytes as they are."""

    connection: int
    data: bytes


class DisconnectAsked(Struct, frozen=True):
    """Close the connection to a dispenser."""

    connection: int
    reason: str
    reset: bool = False
    """With RST instead of FIN."""


class ListenAsked(Struct, frozen=True):
    """Accept new connections, or refuse them."""

    accept: bool


class ReplySent(Struct, frozen=True):
    """Send a GOOSE reply, once. `t` and the signature are the server's."""

    dst: bytes
    message: PowerRequestReply
    st_num: int
    sq_num: int
    key: bytes | None
    """What it is signed with; None: the connector has no key, and the frame is plain."""


class PowerPublished(Struct, frozen=True):
    """Publish on MQTT what is requested of a connector."""

    connector_no: int
    voltage_v: float
    current_a: float


class Observed(Struct, frozen=True):
    """Something that whoever watches the mock may want to know: one line of its event log."""

    event: str
    details: dict[str, Detail]


Action = (
    ReadAsked | WriteAsked | BytesAsked | DisconnectAsked | ListenAsked | ReplySent | PowerPublished | Observed
)
