"""The power unit at the other end of the cables: the mock's model, without sockets.

core's Outputs ─► ModbusSide, GooseSide ─► PsuModel ─► ModbusSide, GooseSide ─► Inputs
"""

from collections.abc import Callable, Sequence
from functools import partial

from ...io.modbus_psu_codec import Answer
from ...messages.config import Config
from ...messages.goose import GooseHeader, PowerRequest, StopRequest
from ...messages.outputs import (
    AnyOutput,
    ExceptionAnswered,
    GooseSilenced,
    HmacKeysForgotten,
    HmacKeysRetired,
    PowerRequested,
    PsuConnectRequested,
    PsuDisconnectRequested,
    ReadAnswered,
    ReportSent,
    StopRequested,
    WriteAnswered,
)
from ...mock.actions import Action, BytesAsked, DisconnectAsked, ListenAsked, ReadAsked, ReplySent, WriteAsked
from ...mock.commands import command_from
from ...mock.psu_model import PsuModel
from ...mock.psu_state import PsuState
from .goose_side import PSU_MAC, GooseSide
from .io_thread import IoThread
from .modbus_side import ModbusSide
from .network import Network
from .plan import Site
from .process import DISPENSER_MAC, Process
from .virtual_time import SECOND_NS, Calendar, Chance

RATINGS = {
    "max_voltage_v": 1000.0,
    "max_current_a": 100.0,
    "min_voltage_v": 100.0,
    "min_current_a": 1.0,
    "power_kw": 60.0,
}
MENDING: tuple[dict[str, object], ...] = (
    {"do": "listen"},
    {"do": "silence", "for_s": 0.0},
    {"do": "running_mode", "mode": "RUNNING"},
    {"do": "placeholder", "reply": "answer"},
    {"do": "clear_alarm"},
    {"do": "port_available", "available": True},
    {"do": "ratings", **RATINGS},
)
"""What makes the power unit work as it should."""


class PowerUnit:
    """The model, and both ways to it."""

    def __init__(
        self,
        config: Config,
        site: Site,
        calendar: Calendar,
        chance: Chance,
        utc_ns: Callable[[], int],
        *,
        modbus_thread: IoThread,
        goose_thread: IoThread,
    ) -> None:
        """The threads are the driver's."""
        self.network = Network(calendar, chance)
        self._calendar = calendar
        self._psu = PsuState(
            mac=PSU_MAC,
            first_round_with_ratings=site.psu_first_round_with_ratings,
            round_ns=int(site.psu_round_s * SECOND_NS),
        )
        self._model = PsuModel(
            self._psu,
            noise=(lambda: chance.uniform(-1, 1)) if site.psu_noise else (lambda: 0.0),
            new_key=(lambda: chance.bytes(48)) if site.own_keys else None,
        )
        self._process: Process | None = None
        self._alarm_ns: int | None = None
        """When the model is to be called next."""
        self.goose = GooseSide(
            config,
            site,
            self._model,
            self._goose_received,
            network=self.network,
            calendar=calendar,
            chance=chance,
            utc_ns=utc_ns,
            thread=goose_thread,
            standing=lambda: self.modbus.standing,
        )
        self.modbus = ModbusSide(self, self.network, calendar, modbus_thread, self.goose.key_written)

    def attach(self, process: Process | None) -> None:
        """Another driver process, or none."""
        self._process = process
        self.goose.attach(process)
        self.modbus.attach(process)

    def tell(self, command: dict[str, object]) -> None:
        """Have it do something (docs/mock.md)."""
        self._do(self._model.command(command_from(command), self._calendar.now_ns))

    def mend(self) -> None:
        """It works again as it should, and so do the cables."""
        self.network.mend()
        for command in MENDING:
            self.tell(command)

    def perform(self, output: AnyOutput) -> None:
        """Take an Output, if it is for the power unit."""
        match output:
            case ReadAnswered() | WriteAnswered() | ExceptionAnswered() | ReportSent():
                self.modbus.answer(output)
            case PsuConnectRequested():
                self.modbus.connect(output.connection)
            case PsuDisconnectRequested():
                self.modbus.disconnect(output.connection, output.reason)
            case HmacKeysRetired() if self._process is not None:
                self._process.key_ring.retire(output.connection)
            case HmacKeysForgotten() if self._process is not None:
                self._process.key_ring.forget(output.connection)
            case PowerRequested() | StopRequested():
                self.goose.issue(output)
            case GooseSilenced(connector=connector):
                self.goose.silence(connector)

    # --- the model -------------------------------------------------------------------------------------------

    def connected(self, session: int) -> None:
        """A dispenser connected."""
        self._do(self._model.connected(session, "dispenser", self._calendar.now_ns))

    def received(self, session: int, event: Answer) -> None:
        """An answer or a report."""
        self._do(self._model.received(session, event, self._calendar.now_ns))

    def disconnected(self, session: int, reason: str) -> None:
        """The connection is gone."""
        self._do(self._model.disconnected(session, reason))

    def _goose_received(self, message: PowerRequest | StopRequest, header: GooseHeader) -> None:
        self._do(self._model.goose_received(message, header, DISPENSER_MAC, self._calendar.now_ns))

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case ReadAsked() | WriteAsked() | BytesAsked():
                    self.modbus.ask(action)
                case DisconnectAsked():
                    drop = partial(self.modbus.drop, action.connection, action.reason, reset=action.reset)
                    self.network.soon(drop)
                case ListenAsked():
                    self.modbus.listens = action.accept
                case ReplySent():
                    self.goose.reply(action)
        self._plan_timer()

    def _plan_timer(self) -> None:
        due_ns = self._model.due_ns
        if due_ns is None or due_ns == self._alarm_ns:
            return
        self._alarm_ns = due_ns

        def ring() -> None:
            if self._alarm_ns == due_ns:
                self._alarm_ns = None
                self._do(self._model.timer(self._calendar.now_ns))

        self._calendar.at(due_ns, ring)
