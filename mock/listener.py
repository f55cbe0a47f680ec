"""The TCP port on which dispensers connect: open, and closed and opened again when the mock is told so."""

import asyncio
import errno
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)
RETRY_S = 1.0


class Listener:
    """Listens on all addresses. For the loop's thread."""

    def __init__(
        self, port: int, new_link: Callable[[], asyncio.Protocol], opened: Callable[[int], None]
    ) -> None:
        """`port` may be 0 for any free one, kept from then on; `opened` is told it whenever the port opens."""
        self._port = port
        self._new_link = new_link
        self._opened = opened
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the port. OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._new_link, "0.0.0.0", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self._opened(self._port)

    def accept(self) -> None:
        """Open the port soon, if it is closed; `opened` follows."""
        if self._server is None and self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open_again())

    def refuse(self) -> None:
        """Close the port at once. Connections that there are stay."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._server is not None:
            self._server.close()
            self._server = None

    def reason(self, error: OSError) -> str:
        """Why `open` failed, for the user."""
        if error.errno == errno.EADDRINUSE:
            return f"TCP port {self._port} is in use; choose another with --port"
        if error.errno == errno.EACCES:
            return f"TCP port {self._port} is for root only; choose one above 1023 with --port"
        return f"cannot listen on TCP port {self._port}: {error.strerror or error}; choose another with --port"

    async def _open_again(self) -> None:
        while self._server is None:
            try:
                await self.open()
            except OSError as error:
                # Someone took the port while it was closed.
                log.warning("%s", self.reason(error))
                await asyncio.sleep(RETRY_S)
        self._opening = None
