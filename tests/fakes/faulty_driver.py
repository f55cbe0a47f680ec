"""The driver with a fault put into its connector: `faulty_driver.py FAULT --config FILE`.

    raise   a setpoint of 666 V makes the handler raise
    block   a setpoint of 666 V makes the core thread hang
    die     a setpoint of 666 V ends the core thread
    link    the Modbus link's thread dies of the first report that says CHARGING
    receive the GOOSE receiver's thread dies of the first frame

Only the fault is added; everything else is the driver as it is.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

from fusioncharger.actors.connector import Connector
from fusioncharger.actors.runtime import Runtime
from fusioncharger.app.cli import main
from fusioncharger.io.goose_receiver import GooseReceiver
from fusioncharger.io.modbus_connection import Connection
from fusioncharger.messages.inputs import SetpointRequested
from fusioncharger.messages.outputs import ReportSent, Segment

TRIGGER_V = 666.0


def is_trigger(message: Any) -> bool:
    return isinstance(message, SetpointRequested) and message.voltage_v == TRIGGER_V


def says_charging(output: Any) -> bool:
    return isinstance(output, ReportSent) and Segment(0x110B, (3,)) in output.segments


def spoil(owner: type, method: str, condition: Callable[[Any], bool], effect: Callable[[], object]) -> None:
    """Let `effect` happen before the method, if the condition holds for its argument."""
    original = getattr(owner, method)

    def spoiled(self: Any, argument: Any) -> Any:
        if condition(argument):
            effect()
        return original(self, argument)

    setattr(owner, method, spoiled)


def fail() -> None:
    raise RuntimeError("injected")


def install(fault: str) -> None:
    """Put the fault in."""
    match fault:
        case "raise":
            spoil(Connector, "handle", is_trigger, fail)
        case "block":
            spoil(Connector, "handle", is_trigger, threading.Event().wait)
        case "die":
            spoil(Runtime, "turn", is_trigger, fail)
        case "link":
            spoil(Connection, "put", says_charging, fail)
        case "receive":
            spoil(GooseReceiver, "_take", lambda _: True, fail)


if __name__ == "__main__":
    install(sys.argv[1])
    raise SystemExit(main(["run", *sys.argv[2:]]))
