"""The driver, with a way past MQTT into its core: each line of standard input is an Input, as JSON, and when it
was put into the core's queue (UTC, ns) is said on standard output.

    python benchmarks/driven_driver.py CONFIG
"""

import sys
import threading
import time

import msgspec
from fusioncharger.app import cli, run_command
from fusioncharger.app.driver import Driver
from fusioncharger.messages.inputs import AnyInput
from fusioncharger.replay.last_errors import NOTHING, LastErrors


class DrivenDriver(Driver):
    """Takes Inputs from standard input as well."""

    def start(self, restored: LastErrors = NOTHING) -> None:
        """Start, with that."""
        super().start(restored)
        threading.Thread(target=self._take_inputs, daemon=True).start()

    def _take_inputs(self) -> None:
        decoder = msgspec.json.Decoder(AnyInput)
        for line in sys.stdin:
            message = decoder.decode(line)
            put_ns = time.time_ns()
            self._core.put(message)
            time.sleep(0.001)  # this thread is not part of the driver: it gives the interpreter away at once
            print(f'{{"put_ns":{put_ns}}}', flush=True)


if __name__ == "__main__":
    run_command.Driver = DrivenDriver
    sys.exit(cli.main(["run", "--config", sys.argv[1], "--log-level", "warning"]))
