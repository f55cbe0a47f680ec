"""A driver and the world around it, on virtual time, as a plan has it.

                ┌─ PowerUnit ── wires, GOOSE ─┐
Plan ─► World ──┤                             ├─ Process (core, journal) ─► watchers
                └─ Everest ──── Mqtt ─────────┘
"""

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ...messages import inputs
from ...messages.config import Config
from ...messages.outputs import AnyOutput
from ...replay.last_errors import NOTHING, LastErrors, restore_errors
from . import plan as planned
from .everest import Everest
from .handler_failures import HandlerFailure
from .invariants import InvariantViolated
from .io_thread import Hold, IoThread
from .mqtt import Mqtt
from .plan import AnyEvent, Plan, kind_of
from .power_unit import PowerUnit
from .process import Process, Watcher
from .recording import BOOT_ID, InMemory, Recording, Target
from .virtual_time import SECOND_NS, Calendar, Chance

UTC_NS = 1_795_000_000 * SECOND_NS
"""When it begins."""
ACTIVE_AFTER_SETTLING_S = 20.0
"""So long charges go on after everything was mended; then they stand as they are, until all must be well."""
RESTORED = "alarms are restored as they stood"
STANDING_S = 15.0
"""More than a placeholder allocation may take (swarm.py), with the way back to Running."""


class World:
    """One run of a plan. `targets` gives where the segments of the next process go; `watch` who looks on."""

    def __init__(
        self,
        plan: Plan,
        *,
        targets: Callable[[], Target] = InMemory,
        watchers: tuple[Watcher, ...] = (),
        settled: Callable[[int], None] = lambda _: None,
        segment_bytes: int | None = None,
    ) -> None:
        """`settled` is called with the process's time when 30 s have passed without a fault."""
        self._plan = plan
        self._targets = targets
        self._watchers = watchers
        self._settled = settled
        self._segment_bytes = segment_bytes
        self._run_ids = random.Random(plan.seed)  # noqa: S311 - seeded on purpose
        self.calendar = Calendar()
        chance = Chance(plan.seed, self.calendar)
        self._chance = chance
        self._utc_offset_ns = UTC_NS
        self._modbus_thread = IoThread(self.calendar)
        self._goose_thread = IoThread(self.calendar)
        self._mqtt_thread = IoThread(self.calendar)
        self._mqtt = Mqtt(self.calendar, chance, self._mqtt_thread, plan.config.everest_timeout_s)
        self.power_unit = PowerUnit(
            plan.config,
            plan.site,
            self.calendar,
            chance,
            self.utc_ns,
            modbus_thread=self._modbus_thread,
            goose_thread=self._goose_thread,
        )
        self.everest = Everest(
            plan.config, plan.site, self.calendar, chance, self._mqtt, self.power_unit.goose.demand
        )
        self.process: Process | None = None
        self.processes: list[tuple[Process, Target]] = []
        self.happened: Counter[str] = Counter()
        """Events, by kind."""
        self.settled_times = 0
        self._last_fault_ns = 0
        self._begin_process(NOTHING)
        for event in plan.events:
            self.calendar.at(int(event.at_s * SECOND_NS), partial(self._happen, event))

    @property
    def config(self) -> Config:
        """The driver's configuration."""
        return self._plan.config

    @property
    def turns(self) -> int:
        """Of all processes."""
        return sum(process.turns for process, _ in self.processes)

    def utc_ns(self) -> int:
        """The wall clock."""
        return self.calendar.now_ns + self._utc_offset_ns

    def run_until(self, at_s: float) -> None:
        """Let time go by."""
        self.calendar.run_until(int(at_s * SECOND_NS))

    def end(self) -> None:
        """The driver is stopped, and its log closed."""
        if self.process is not None:
            self.process.stop()
            self._end_process()

    # --- the driver ------------------------------------------------------------------------------------------

    def _begin_process(self, restored: LastErrors) -> None:
        target = self._targets()
        run_id = self._run_ids.randbytes(16).hex()
        recording = Recording(target, run_id, self.config, segment_bytes=self._segment_bytes)
        process = Process(
            self.config,
            self.calendar,
            recording,
            self.utc_ns,
            perform=self._perform,
            watchers=self._watchers,
        )
        self.process = process
        self.processes.append((process, target))
        self.power_unit.attach(process)
        self._mqtt.attach(process)
        process.start(restored.errors, restored.journal)

    def _perform(self, output: AnyOutput) -> None:
        self.power_unit.perform(output)
        self.everest.perform(output)

    def _end_process(self) -> None:
        self.process = None
        self.power_unit.attach(None)
        self._mqtt.detach()

    def _restart(self, event: planned.DriverRestarts) -> None:
        process = self.process
        if process is None:
            return
        if event.killed:
            process.kill(event.cut_bytes)
        else:
            process.stop()
        self._end_process()
        self.calendar.after(event.for_s, partial(self._begin_again, forgets=event.forgets_alarms))

    def _begin_again(self, *, forgets: bool) -> None:
        if self.process is None:
            self._begin_process(NOTHING if forgets else self._last_errors())

    def _last_errors(self) -> LastErrors:
        """What the journal of the former process says of the boards' errors, read as a start reads it."""
        process, target = self.processes[-1]
        if not isinstance(target, InMemory):
            return NOTHING
        with tempfile.TemporaryDirectory(dir=_memory_directory()) as directory:
            target.write_to(Path(directory), last_only=True)
            restored = restore_errors(Path(directory), self.config, BOOT_ID)
        if not process.has_lost_journal and restored.errors != process.board_errors:
            text = f"{process.board_errors} stood, {restored.errors} are restored"
            raise InvariantViolated(RESTORED, text)
        return restored

    # --- what happens ----------------------------------------------------------------------------------------

    def _happen(self, event: AnyEvent) -> None:
        self.happened[kind_of(event)] += 1
        if isinstance(event, planned.Settles):
            self._settle()
            return
        if not isinstance(event, planned.Session | planned.JournalRotates):
            self._last_fault_ns = self.calendar.now_ns
        match event:
            case (
                planned.Session()
                | planned.Unplug()
                | planned.Odd()
                | planned.BoardEvent()
                | planned.BoardError()
                | planned.DeviceSilent()
            ):
                self._happen_at_connector(event)
            case (
                planned.EverestRestarts()
                | planned.EverestSilent()
                | planned.HistorySilent()
                | planned.BrokerLost()
                | planned.MqttTrouble()
            ):
                self._happen_to_everest(event)
            case (
                planned.Psu()
                | planned.LinkCut()
                | planned.LinkStalls()
                | planned.LinkSlow()
                | planned.GooseTrouble()
                | planned.GooseForged()
            ):
                self._happen_at_psu(event)
            case planned.ClockJumps():
                self._utc_offset_ns += int(event.by_s * SECOND_NS)
            case _:
                self._happen_to_driver(event)

    def _happen_at_connector(
        self,
        event: planned.Session
        | planned.Unplug
        | planned.Odd
        | planned.BoardEvent
        | planned.BoardError
        | planned.DeviceSilent,
    ) -> None:
        match event:
            case planned.Session():
                self.everest.car_comes(event)
            case planned.Unplug():
                self.everest.unplug(event.connector)
            case planned.Odd():
                self.everest.ask_oddly(event.connector, event.what)
            case planned.BoardEvent():
                self.everest.board_says(event.connector, event.event)
            case planned.BoardError():
                self.everest.board_fails(event.connector, event.error_type, event.sub_type, event.for_s)
            case planned.DeviceSilent():
                self.everest.silence_devices(event.connector, event.for_s)

    def _happen_to_everest(
        self,
        event: planned.EverestRestarts
        | planned.EverestSilent
        | planned.HistorySilent
        | planned.BrokerLost
        | planned.MqttTrouble,
    ) -> None:
        match event:
            case planned.EverestRestarts():
                self.everest.restart(event.for_s)
            case planned.EverestSilent():
                self.everest.be_quiet(event.for_s)
            case planned.HistorySilent():
                self.everest.silence_history(event.for_s)
            case planned.BrokerLost():
                self._mqtt.lose(event.for_s, keeps=event.keeps)
            case planned.MqttTrouble():
                self._mqtt.trouble(event.for_s, event.lost, event.twice, event.slow_s)

    def _happen_at_psu(
        self,
        event: planned.Psu
        | planned.LinkCut
        | planned.LinkStalls
        | planned.LinkSlow
        | planned.GooseTrouble
        | planned.GooseForged,
    ) -> None:
        trouble = self.power_unit.network.trouble
        match event:
            case planned.Psu():
                self.power_unit.tell(event.command)
            case planned.LinkCut():
                self.power_unit.modbus.cut()
            case planned.LinkStalls():
                self.power_unit.modbus.stall(event.for_s)
            case planned.LinkSlow():
                trouble.slow_until_ns = self.calendar.now_ns + int(event.for_s * SECOND_NS)
                trouble.slow_s, trouble.splits = event.slow_s, event.splits
            case planned.GooseTrouble():
                trouble.goose_until_ns = self.calendar.now_ns + int(event.for_s * SECOND_NS)
                trouble.goose_slow_s = event.slow_s
                trouble.goose_lost, trouble.goose_twice = event.lost, event.twice
            case planned.GooseForged():
                self.power_unit.goose.begin_forging(event.connector, event.how, event.for_s)

    def _happen_to_driver(
        self,
        event: planned.HandlerRaises
        | planned.ThreadHeld
        | planned.JournalLost
        | planned.JournalRotates
        | planned.DriverRestarts,
    ) -> None:
        process = self.process
        if process is None:
            return
        match event:
            case planned.HandlerRaises():
                process.failures.arm(HandlerFailure(event.on, event.call, event.after))
            case planned.ThreadHeld():
                cut = None if event.cut_after_s is None else self.power_unit.modbus.cut
                hold = Hold(event.on, event.for_s, cut, event.cut_after_s or 0.0)
                self._thread_of(event.on).arm(hold)
            case planned.JournalLost():
                process.lose_journal("No space left on device", event.lost_turns)
                self.calendar.after(event.for_s, process.restore_journal)
            case planned.JournalRotates():
                process.rotate()
            case planned.DriverRestarts():
                self._restart(event)

    def _thread_of(self, kind: str) -> IoThread:
        """The one that makes Inputs of a kind."""
        threads = {"psu": self._modbus_thread, "goose": self._goose_thread}
        return threads.get(getattr(inputs, kind).group, self._mqtt_thread)

    def _settle(self) -> None:
        """Mend everything; and when 30 s have passed, all must be well."""
        self._begin_again(forgets=False)
        process = self.process
        assert process is not None  # noqa: S101 - narrows the type
        process.failures.arm(None)
        for thread in (self._modbus_thread, self._goose_thread, self._mqtt_thread):
            thread.call_off()
        process.restore_journal()
        self._mqtt.mend()
        self.power_unit.mend()
        self.everest.mend()
        mended_ns = self.calendar.now_ns
        standing_ns = mended_ns + int(ACTIVE_AFTER_SETTLING_S * SECOND_NS)
        settled_ns = standing_ns + int(STANDING_S * SECOND_NS)
        # So that what EVerest asked for last had its time.
        self.calendar.at(standing_ns, partial(self.everest.hold, settled_ns + SECOND_NS // 1000))

        def settled() -> None:
            if self._last_fault_ns <= mended_ns and self.process is process:
                self.settled_times += 1
                self._settled(process.now_ns)

        self.calendar.at(settled_ns, settled)


def _memory_directory() -> str | None:
    """A file system in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a directory of its own is made in it
