"""A short session with two connectors, put through the core and the journal as the driver does it."""

import fcntl
import select
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fusioncharger.actors.system import build, snapshot
from fusioncharger.messages.config import Config, ConnectorConfig
from fusioncharger.messages.inputs import (
    BrokerConnected,
    BspEventReceived,
    HeartbeatReceived,
    Input,
    ModeRequested,
    PsuConnected,
    RegistersRead,
    RegistersWritten,
    SetpointRequested,
    Started,
)
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode
from fusioncharger.replay.directory_lock import DirectoryLock
from fusioncharger.replay.housekeeping import LOCK_NAME
from fusioncharger.replay.journal import Journal
from fusioncharger.replay.log_format import Report
from msgspec.structs import replace

RUN_ID = "0123456789abcdef0123456789abcdef"
UTC_NS = 1_795_000_000_000_000_000
TURN_NS = 10_000_000
"""Time from turn to turn."""

CONFIG = Config(
    connectors=tuple(
        ConnectorConfig(
            global_connector_number=number,
            max_export_current_A=200.0,
            max_export_power_W=60_000.0,
            power_supply_DC=f"psu_{number}",
            evse_board_support=f"bsp_{number}",
        )
        for number in (1, 2)
    )
)

INPUTS: tuple[Input, ...] = (
    Started(utc_offset_ns=UTC_NS, goose_mac=bytes.fromhex("02000a0b0c0d")),
    BrokerConnected(session_present=False),
    PsuConnected(connection=1),
    RegistersRead(connection=1, transaction_id=1, unit_id=0, address=0x0000, count=5, adu=bytes(12)),
    RegistersWritten(
        connection=1,
        transaction_id=2,
        unit_id=0,
        function=0x10,
        address=0x2111,
        words=(0x0200, 0x0102, 0x0304),
        adu=bytes(19),
    ),
    *(HeartbeatReceived(connector=number, heartbeat_id=1) for number in (1, 2)),
    BspEventReceived(connector=1, event=BspEvent.B),
    ModeRequested(connector=1, mode=Mode.EXPORT, charging_phase=ChargingPhase.CABLE_CHECK),
    SetpointRequested(connector=1, voltage_v=400.0, current_a=20.0),
    ModeRequested(connector=1, mode=Mode.OFF, charging_phase=ChargingPhase.OTHER),
    BspEventReceived(connector=1, event=BspEvent.A),
    *(HeartbeatReceived(connector=number, heartbeat_id=2) for number in (1, 2)),
)


class DrivenJournal:
    """A journal with a core in front of it, driven turn by turn."""

    def __init__(
        self,
        directory: Path,
        config: Config = CONFIG,
        lock: DirectoryLock | None = None,
        run_id: str = "",
        **options: int,
    ) -> None:
        self.directory = directory
        self.journal = Journal(directory, run_id or RUN_ID, config, lock=lock, **options)
        self.runtime = build(config)
        self.turn = 0

    @property
    def logs(self) -> list[Path]:
        return sorted(self.directory.glob("*.mcap"))

    def open(self, utc_jump_ns: int = 0) -> None:
        self.journal.open(snapshot(self.runtime), self.turn + 1, self.turn * TURN_NS, UTC_NS + utc_jump_ns)

    def run(self, inputs: Iterable[Input] = INPUTS, utc_jump_ns: int = 0) -> None:
        for message in inputs:
            self.turn += 1
            stamped = replace(message, at_ns=self.turn * TURN_NS)
            utc_ns = UTC_NS + stamped.at_ns + utc_jump_ns
            self.journal.record_input(self.turn, utc_ns, stamped)
            outputs = self.runtime.turn(stamped)
            self.journal.record_outputs(self.turn, stamped.at_ns, utc_ns, outputs)

    def begin_segment(self) -> bool:
        at_ns = self.turn * TURN_NS
        return self.journal.begin_segment(snapshot(self.runtime), self.turn + 1, at_ns, UTC_NS + at_ns)

    def replace_recorder(self) -> None:
        """The next segment begins, by another recorder."""
        assert self.journal.prepare_replacement(UTC_NS + self.turn * TURN_NS)
        self.await_report("ready")
        assert self.begin_segment()

    def await_report(self, event: str) -> Report:
        """Wait for a recorder to report the event."""
        while True:
            readable, _, _ = select.select([self.journal.report_fd], [], [], 10.0)
            assert readable, f"no report {event!r} in 10 s"
            for report in self.journal.read_reports():
                if report.event == event:
                    return report


def record_segments(directory: Path, *parts: Iterable[Input]) -> list[Path]:
    """Record a whole run, a segment for each part; they may be compressed meanwhile."""
    driven = DrivenJournal(directory)
    driven.open()
    driven.await_report("ready")
    for number, inputs in enumerate(parts):
        if number:
            driven.replace_recorder()
        driven.run(inputs)
    assert driven.journal.close(10.0)
    return driven.logs


def record_session(directory: Path, inputs: Iterable[Input] = INPUTS) -> Path:
    """Record a whole session, closed with goodbye; the log, which nobody will compress meanwhile."""
    directory.mkdir(parents=True, exist_ok=True)
    recorded = Path(tempfile.mkdtemp(prefix="recorded-", dir=directory))
    with (recorded / LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        driven = DrivenJournal(recorded)
        driven.open()
        driven.run(inputs)
        assert driven.journal.close(10.0)
        (log,) = driven.logs
        plain = directory / log.name
        plain.write_bytes(log.read_bytes())
    shutil.rmtree(recorded)
    return plain
