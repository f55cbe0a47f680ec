"""A log of charging sessions at four connectors, as long as wanted, made on virtual time."""

import math
from pathlib import Path

from core_harness import UTC_OFFSET_NS, Core, make_config
from fusioncharger.actors.system import snapshot
from fusioncharger.messages import inputs
from fusioncharger.messages.types import ChargingPhase
from fusioncharger.replay.journal import Journal
from msgspec.structs import replace

RUN_ID = "fedcba9876543210fedcba9876543210"
STEP_S = 0.25
CABLE_CHECK, PRE_CHARGE, CHARGING, FINISHED, SESSION = 40, 80, 110, 3000, 3400
"""Steps of a session at which the next part of it begins; SESSION: the next session."""
ALARM, AWAY, BACK = 5400, 9000, 9120
"""Steps of the log at which the PSU has an alarm, and at which it is away."""


class RecordedCore(Core):
    """The core on virtual time, with a journal that loses nothing however fast it goes."""

    def __init__(self, directory: Path, connectors: int) -> None:
        super().__init__(make_config(connectors))
        self.journal = Journal(directory, RUN_ID, self.config, backlog_bytes=2**30)
        self.journal.open(snapshot(self.runtime), 1, 0, UTC_OFFSET_NS)
        self.turns = 0

    def _turn(self, message: inputs.Input) -> list:
        self.turns += 1
        utc_ns = UTC_OFFSET_NS + self.at_ns
        self.journal.record_input(self.turns, utc_ns, replace(message, at_ns=self.at_ns))
        made = super()._turn(message)
        self.journal.record_outputs(self.turns, self.at_ns, utc_ns, tuple(made))
        self.history.clear()
        return made


def record_charging(directory: Path, seconds: float, connectors: int = 4) -> int:
    """Record it into the directory; the number of turns."""
    core = RecordedCore(directory, connectors)
    core.ready()
    core.write("psu_running_mode", 1)
    core.feed(inputs.BrokerConnected(session_present=False))
    for step in range(round(seconds / STEP_S)):
        for number in range(1, connectors + 1):
            if step % 4 == 0:
                core.heartbeat(step // 4, number)
            _charge(core, number, (step - 300 * number) % SESSION)
        _power_unit(core, step)
        if step % 1000 == 999:
            core.feed(inputs.GooseFramesDropped(counts={"old st_num": 3}))
        core.advance(STEP_S - core.at_ns / 1e9 % STEP_S)
    core.feed(inputs.ShutdownRequested(reason="SIGTERM"))
    assert core.journal.close(60.0)
    return core.turns


def _power_unit(core: Core, step: int) -> None:
    """What the PSU does meanwhile: it reports its AC input, has an alarm once, and is away once."""
    if step % 8 == 0 and not AWAY < step < BACK:
        phase = "abc"[step // 8 % 3]
        core.write(f"ac_input_voltage_{phase}", 230.0 + 3 * math.sin(step / 300 + step // 8 % 3))
        core.write(f"ac_input_current_{phase}", 110.0 + 40 * math.sin(step / 500))
    if step in (ALARM, ALARM + 240):
        core.write("PowerUnit/Smoke", int(step == ALARM))
    elif step == AWAY:
        core.disconnect("connection reset by peer")
    elif step == BACK:
        core.connect()
        core.write("psu_running_mode", 1)
        for number in range(1, len(core.config.connectors) + 1):
            core.key(number)
            core.reply(number)


def _charge(core: Core, number: int, step: int) -> None:
    """A quarter of a second of a connector's session."""
    if step == 0:
        core.to_running(number)
        core.setpoint(500.0, 2.0, number)
        core.export(ChargingPhase.CABLE_CHECK, number)
    elif step == CABLE_CHECK:
        core.off(number)
        core.setpoint(390.0, 2.0, number)
        core.export(ChargingPhase.PRE_CHARGE, number)
    elif step == PRE_CHARGE:
        core.export(connector=number)
    elif step == FINISHED:
        core.off(number)
    elif step == FINISHED + 40:
        core.plug_out(number)
    if step < CHARGING:
        voltage_v = 500.0 * (1 - math.exp(-step / 6)) if step < CABLE_CHECK else 390.0
        core.feed(inputs.IsolationMeasured(connector=number, voltage_v=voltage_v))
        core.feed(inputs.PowermeterMeasured(connector=number, voltage_v=voltage_v, current_a=0.0))
    elif step < FINISHED:
        current_a = 90.0 - 70.0 * (step / FINISHED) ** 2 + 4.0 * math.sin(step / 150)
        if step % 2 == 0:
            core.setpoint(round(400.0 + step / 60, 1), round(current_a, 1), number)
        measured = inputs.PowermeterMeasured(
            connector=number,
            voltage_v=round(398.0 + step / 60 + 2 * math.sin(step), 2),
            current_a=round(current_a - abs(math.sin(7 * step)), 2),
        )
        core.feed(measured)
        if step % 4 == 0:
            core.feed(inputs.IsolationMeasured(connector=number, voltage_v=round(400.0 + step / 60, 1)))
