"""The demo's MQTT broker, as a process of its own: `python -m fusioncharger.app.demo_broker PORT`.

amqtt, so that a fresh machine needs no server. It speaks MQTT 3.1.1 only (architecture.md §6). Ends on SIGTERM.
"""

import asyncio
import logging
import signal
import sys

from amqtt.broker import Broker


async def serve(port: int) -> None:
    """Serves on 127.0.0.1:`port` until SIGTERM."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    await terminated.wait()
    await broker.shutdown()


if __name__ == "__main__":
    # Its warnings are about clients that come and go, the MQTT 5 attempt of the driver among them.
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(int(sys.argv[1])))
