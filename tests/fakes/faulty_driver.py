"""The driver with a fault put into its connector: `faulty_driver.py FAULT --config FILE`.

    raise   a setpoint of 666 V makes the handler raise
    block   a setpoint of 666 V makes the core thread hang

Only the fault is added; everything else is the driver as it is.
"""

import sys
import threading
from typing import Any

from fusioncharger.actors.connector import Connector
from fusioncharger.app.cli import main
from fusioncharger.messages.inputs import SetpointRequested

TRIGGER_V = 666.0


def install(fault: str) -> None:
    """Put the fault in."""
    original = Connector.handle

    def handle(self: Connector, message: Any) -> None:
        if isinstance(message, SetpointRequested) and message.voltage_v == TRIGGER_V:
            if fault == "raise":
                raise RuntimeError("injected")
            threading.Event().wait()
        original(self, message)

    Connector.handle = handle  # type: ignore[method-assign]


if __name__ == "__main__":
    install(sys.argv[1])
    raise SystemExit(main(["run", *sys.argv[2:]]))
