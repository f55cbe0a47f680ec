"""The demo from the first process to the replay: starts broker, mock and driver, plays, ends, replays.

What the processes log, the power unit's event log and the recording are kept in one folder.
"""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from .demo_everest import TELEMETRY_PREFIX, Everest, board_id, meter_id, monitor_id, power_supply_id
from .demo_narrator import ExpectationError, Narrator
from .demo_network import GooseNetwork
from .demo_processes import Processes, PsuView, free_port, wait_until_accepting
from .demo_stage import CONNECTORS, Stage
from .demo_story import play_session
from .demo_tls import make_certificates, refuse_visitor, settings

EXIT_OK = 0
EXIT_FAILED = 1

START_TIMEOUT_S = 10.0
REPLAY_TIMEOUT_S = 30.0


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


def play(output: Path, network: GooseNetwork, *, is_encrypted: bool) -> int:
    """0 only if power unit and EVerest saw all that they had to and the recording replays as identical."""
    console = Console()
    narrator = Narrator(console)
    started_at = time.monotonic()
    console.print("[bold]fusioncharger demo[/]: two cars charge at a power unit that is software")
    console.print(f"GOOSE: {escape(network.explanation)}", highlight=False, soft_wrap=not console.is_terminal)
    processes = Processes(output)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(processes.end_all)
        try:
            _charge(output, network, processes, narrator, is_encrypted=is_encrypted)
            log, verdict = _replay(output, narrator)
        except (DemoError, ExpectationError) as error:
            console.print(f"\n[bold red]The demo failed[/]: {escape(str(error))}", highlight=False)
            _show_logs(console, processes)
            return EXIT_FAILED
    seconds = time.monotonic() - started_at
    console.print(f"\n[bold green]{narrator.held} checks, all held[/], in {seconds:.0f} s", highlight=False)
    console.print(f"log: {escape(str(log))}", highlight=False, soft_wrap=True)
    console.print(escape(verdict), highlight=False, soft_wrap=True)
    return EXIT_OK


def _charge(
    output: Path, network: GooseNetwork, processes: Processes, narrator: Narrator, *, is_encrypted: bool
) -> None:
    mqtt_port, psu_port = free_port(), free_port()
    processes.start("broker", "fusioncharger.app.demo_broker", str(mqtt_port))
    if not wait_until_accepting(mqtt_port, START_TIMEOUT_S):
        msg = "the MQTT broker does not start"
        raise DemoError(msg)
    certificates = make_certificates(output) if is_encrypted else None
    psu = _start_mock(output, network, processes, port=psu_port, certificates=certificates)
    config = output / "driver.toml"
    config.write_text(
        _config(output, network, mqtt_port=mqtt_port, psu_port=psu_port, certificates=certificates)
    )
    with contextlib.closing(Everest(mqtt_port, CONNECTORS)) as everest:
        stage = Stage(narrator, everest, psu, lambda **command: processes.tell("mock", json.dumps(command)))
        if is_encrypted:
            refuse_visitor(stage, psu_port)
        processes.start("driver", "fusioncharger", "run", "--config", str(config))
        play_session(stage, is_encrypted=is_encrypted)
        narrator.chapter(
            "The driver ends", "SIGTERM: it stops all power, says good-bye and closes its recording."
        )
        narrator.check("exit code 0", lambda: processes.terminate("driver") == 0)


def _start_mock(
    output: Path, network: GooseNetwork, processes: Processes, *, port: int, certificates: Path | None
) -> PsuView:
    events = output / "power-unit-events.jsonl"
    processes.start(
        "mock",
        *("fusioncharger", "mock"),
        *([str(certificates)] if certificates else []),
        *("--interface", network.mock_interface),
        *("--port", str(port)),
        *("--events", str(events)),
        *("--ratings-at-once", "--control", "-"),
    )
    psu = PsuView(events)
    if psu.wait_for(lambda event: event["event"] == "listening", 0, START_TIMEOUT_S) is None:
        msg = "the PSU mock does not start"
        raise DemoError(msg)
    return psu


def _replay(output: Path, narrator: Narrator) -> tuple[Path, str]:
    """The recording, and what its replay says."""
    narrator.chapter(
        "Replay",
        "Every input that was recorded goes through the same code again, and every output is compared.",
    )
    logs = sorted(output.glob("*.mcap"))
    if len(logs) != 1:
        msg = f"{len(logs)} recordings in {output}, expected one"
        raise DemoError(msg)
    command = [sys.executable, "-P", "-m", "fusioncharger", "replay", str(logs[0])]
    try:
        replay = subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, text=True, timeout=REPLAY_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        msg = f"the replay of {logs[0]} does not end"
        raise DemoError(msg) from None
    verdict = next((line for line in replay.stdout.splitlines() if line.startswith("identical:")), "")
    if replay.returncode != 0 or not verdict:
        msg = f"the replay of {logs[0]} says:\n{replay.stdout}{replay.stderr}"
        raise DemoError(msg)
    narrator.check(verdict, lambda: True)
    return logs[0], verdict


def _show_logs(console: Console, processes: Processes) -> None:
    for path, lines in processes.log_tails():
        console.print(f"\n--- the end of {escape(str(path))}", highlight=False, soft_wrap=True)
        for line in lines:
            console.print(escape(line), highlight=False, soft_wrap=True)


def _config(
    output: Path, network: GooseNetwork, *, mqtt_port: int, psu_port: int, certificates: Path | None
) -> str:
    tables = [
        f"""
[[connectors]]
global_connector_number = {connector}
max_export_current_A = 100.0
max_export_power_W = 60000.0
power_supply_DC = "{power_supply_id(connector)}"
evse_board_support = "{board_id(connector)}"
isolation_monitor = "{monitor_id(connector)}"
powermeter = "{meter_id(connector)}"
"""
        for connector in CONNECTORS
    ]
    return f"""\
ethernet_interface = "{network.driver_interface}"
psu_ip = "127.0.0.1"
psu_port = {psu_port}
telemetry_topic_prefix = "{TELEMETRY_PREFIX}"
{settings(certificates) if certificates else ""}
[mqtt]
host = "127.0.0.1"
port = {mqtt_port}

[journal]
dir = {json.dumps(str(output), ensure_ascii=False)}
{"".join(tables)}"""
