"""TLS from a dispenser to the mock, before and after the handshake.

input   0, bytes                      in place of a ClientHello
        1, cuts, altered byte, …      a true handshake, cut into pieces, with a byte altered on its way
        2, cuts, bytes                what a dispenser says in TLS, after the handshake
"""

import ssl
import tempfile
from pathlib import Path

from fakes.pki import dispenser_files, make_folder, psu_files
from fusioncharger.io.tls import client_context, server_context
from fusioncharger.mock.tls_session import TlsRefusedError, TlsSession
from fuzz.source import Source, cut

with tempfile.TemporaryDirectory() as folder:
    make_folder(Path(folder))
    SERVER = server_context(psu_files(Path(folder)))
    CLIENT = client_context(dispenser_files(Path(folder)), hostname="")


class Dispenser:
    """The other end, in memory."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = CLIENT.wrap_bio(self.incoming, self.outgoing)

    def shake_hands(self, data: bytes = b"") -> bytes:
        """Take what the server says; what to send to it."""
        self.incoming.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return b""
        return self.outgoing.read()


def check(data: bytes) -> None:
    source = Source(data)
    session = TlsSession(SERVER)
    try:
        match source.below(3):
            case 0:
                for piece in cut(source.take(2048), source):
                    receive(session, piece)
            case 1:
                shake_hands(session, source, altered_at=source.number(2), mask=source.number())
            case _:
                speak(session, source)
    except TlsRefusedError:
        session.take_output()  # the alert


def receive(session: TlsSession, data: bytes) -> bytes:
    """As dispenser_link.py does: never with no bytes at all."""
    return session.receive(data) if data else b""


def shake_hands(session: TlsSession, source: Source, altered_at: int, mask: int) -> Dispenser:
    dispenser = Dispenser()
    sent_bytes = 0
    data = dispenser.shake_hands()
    while data:
        if sent_bytes <= altered_at < sent_bytes + len(data):
            place = altered_at - sent_bytes
            data = data[:place] + bytes((data[place] ^ mask,)) + data[place + 1 :]
        sent_bytes += len(data)
        for piece in cut(data, source):
            receive(session, piece)
        data = dispenser.shake_hands(session.take_output())
    return dispenser


def speak(session: TlsSession, source: Source) -> None:
    """However the records are cut on their way, the mock hears what was said."""
    dispenser = shake_hands(session, Source(b""), 0, 0)
    assert session.is_established
    session.describe()
    pieces = Source(source.take(9))
    said = source.rest()
    for part in cut(said, pieces):
        if part:
            dispenser.tls.write(part)
    heard = b"".join(receive(session, piece) for piece in cut(dispenser.outgoing.read(), pieces))
    assert heard == said
    session.send(b"ok")
    session.close()
