"""What the PSU model wants done: the only thing that comes out of it."""

from msgspec import Struct

from ..messages.goose import PowerRequestReply

Detail = str | int | float | bool | None | dict[str, str | int | float]


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


class DisconnectAsked(Struct, frozen=True):
    """Close the connection to a dispenser."""

    connection: int
    reason: str


class ReplySent(Struct, frozen=True):
    """Send a GOOSE reply, once. `t` and the signature are the server's."""

    dst: bytes
    message: PowerRequestReply
    st_num: int
    sq_num: int


class PowerPublished(Struct, frozen=True):
    """Publish on MQTT what is requested of a connector."""

    connector_no: int
    voltage_v: float
    current_a: float


class Observed(Struct, frozen=True):
    """Something that whoever watches the mock may want to know: one line of its event log."""

    event: str
    details: dict[str, Detail]


Action = ReadAsked | WriteAsked | DisconnectAsked | ReplySent | PowerPublished | Observed
