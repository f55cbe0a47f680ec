"""The driver with a fault put into it: `faulty_driver.py FAULT --config FILE`. A setpoint of 666 V sets it off.

    raise           the connector's handler raises
    block           the core thread hangs
    die             the core thread ends
    PART dies       that part's thread ends the next time that it does its work
    PART hangs      that part's thread hangs there, with the locks that it holds then
    small backlog   only that the journal's backlog holds 64 KiB
    slow start      the first recorder takes 2.5 s to start, the first turn 0.3 s
    stuck recorder  every recorder but the first one hangs as it is started
    end hangs       at the end the journal's closing hangs; 2 s are the limit for the end

Only the fault is added; everything else is the driver as it is.
"""

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from fusioncharger.actors.connector import Connector
from fusioncharger.actors.runtime import Runtime
from fusioncharger.app import driver
from fusioncharger.app.cli import main
from fusioncharger.app.core_loop import CoreLoop
from fusioncharger.io.af_packet_port import AfPacketPort
from fusioncharger.io.goose_publisher import GoosePublisher
from fusioncharger.io.modbus_link import ModbusLink
from fusioncharger.messages.inputs import SetpointRequested, Started
from fusioncharger.replay import journal

TRIGGER_V = 666.0
PARTS: dict[str, tuple[str, type, str]] = {
    "link": ("modbus", ModbusLink, "_take_outputs"),
    "publisher": ("goose-publish", GoosePublisher, "_send_due"),
    "receiver": ("goose-receive", AfPacketPort, "receive"),
    "mqtt": ("mqtt", paho.Client, "loop_misc"),
    "log": ("process-log", logging.StreamHandler, "emit"),
}
"""Each part's thread, and what it does all the time."""

set_off = threading.Event()


def is_trigger(message: Any) -> bool:
    return isinstance(message, SetpointRequested) and message.voltage_v == TRIGGER_V


def spoil(owner: type, method: str, condition: Callable[..., bool], effect: Callable[[], object]) -> None:
    """Let `effect` happen before the method, if the condition holds for its arguments."""
    original = getattr(owner, method)

    def spoiled(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if condition(*arguments):
            effect()
        return original(self, *arguments, **keywords)

    setattr(owner, method, spoiled)


def fail() -> None:
    raise RuntimeError("injected")


def end_thread() -> None:
    # SystemExit: what is made to survive exceptions would survive others.
    tell_time()
    sys.exit()


def hang() -> None:
    tell_time()
    threading.Event().wait()


def tell_time() -> None:
    os.write(2, f"fault at {time.time()}\n".encode())


def install(fault: str) -> None:
    """Put the fault in."""
    match fault.split():
        case ["raise"]:
            spoil(Connector, "handle", is_trigger, fail)
        case ["block"]:
            spoil(Connector, "handle", is_trigger, hang)
        case ["die"]:
            spoil(Runtime, "turn", is_trigger, end_thread)
        case ["small", "backlog"]:
            journal.Journal.__init__.__kwdefaults__["backlog_bytes"] = 65536
        case ["slow", "start"]:
            spoil(journal.Journal, "open", lambda *_: True, lambda: time.sleep(2.5))
            spoil(CoreLoop, "_turn", lambda message: isinstance(message, Started), lambda: time.sleep(0.3))
        case ["stuck", "recorder"]:
            starts = itertools.count()
            spoil(journal.Journal, "prepare_replacement", lambda *_: next(starts) > 0, hang)
        case ["end", "hangs"]:
            driver.END_TIMEOUT_S = 2.0
            spoil(journal.Journal, "close", lambda *_: True, hang)
        case [part, how]:
            spoil(CoreLoop, "put", is_trigger, set_off.set)
            thread, owner, method = PARTS[part]
            spoil(
                owner,
                method,
                lambda *_: set_off.is_set() and threading.current_thread().name == thread,
                {"dies": end_thread, "hangs": hang}[how],
            )
        case _:
            raise ValueError(fault)


if __name__ == "__main__":
    install(sys.argv[1])
    raise SystemExit(main(["run", *sys.argv[2:]]))
