"""What a Modbus codec makes of a stream, however it is cut."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from fusioncharger.io.modbus_adu import ModbusProtocolError

E_co = TypeVar("E_co", covariant=True)


class Codec(Protocol[E_co]):
    """The dispenser's, or the PSU's."""

    def receive(self, data: bytes) -> None: ...

    def next_event(self) -> E_co | None: ...


def decoded(codec: Codec[E_co], pieces: Iterable[bytes]) -> tuple[list[E_co], str]:
    """The events, and the protocol error after them ("": none)."""
    events: list[E_co] = []
    for piece in pieces:
        codec.receive(piece)
        try:
            while (event := codec.next_event()) is not None:
                events.append(event)
        except ModbusProtocolError as error:
            return events, str(error)
    return events, ""
