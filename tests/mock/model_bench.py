"""The PSU model on a time of the test's own, and dispensers that answer it."""

from collections.abc import Callable

from fusioncharger.io.modbus_adu import Device
from fusioncharger.io.modbus_psu_codec import ReadAnswer, Report, WriteAnswer
from fusioncharger.messages.goose import GooseHeader, PowerRequest, StopRequest
from fusioncharger.messages.outputs import Segment
from fusioncharger.messages.registers import RegisterMap, decode
from fusioncharger.messages.types import PowerRequestMode, RequirementType, StopReason
from fusioncharger.mock.actions import Action, Observed, ReadAsked, WriteAsked
from fusioncharger.mock.commands import command_from
from fusioncharger.mock.psu_model import PsuModel
from fusioncharger.mock.psu_state import PsuState
from fusioncharger.mock.scenario import Scenario

SECOND_NS = 1_000_000_000
MAC = bytes.fromhex("020000000001")
DISPENSER = bytes.fromhex("020000000002")
REGISTERS = RegisterMap(4)


class Bench:
    """A model, and dispensers that answer at once from a few register values."""

    def __init__(
        self,
        connector_count: int = 1,
        *,
        psu: PsuState | None = None,
        new_key: Callable[[], bytes] | None = None,
        scenario: Scenario | None = None,
    ) -> None:
        self.psu = psu or PsuState(mac=MAC)
        self.model = PsuModel(self.psu, noise=lambda: 0.0, new_key=new_key, scenario=scenario)
        self.now_ns = 0
        self.values = {0x1015: connector_count}
        self.asked: list[ReadAsked | WriteAsked] = []
        self.events: list[Observed] = []
        self.others: list[Action] = []

    def connect(self, connection: int = 1) -> None:
        self.perform(self.model.connected(connection, f"peer {connection}", self.now_ns))

    def perform(self, actions: list[Action], *, answer: bool = True) -> None:
        for action in actions:
            match action:
                case ReadAsked() | WriteAsked():
                    self.asked.append(action)
                case Observed():
                    self.events.append(action)
                case _:
                    self.others.append(action)
        for action in actions:
            if answer and isinstance(action, ReadAsked | WriteAsked):
                self.answer(action)

    def answer(self, asked: ReadAsked | WriteAsked, *, answer: bool = True) -> None:
        if isinstance(asked, ReadAsked):
            words = tuple(self.values.get(asked.address + n, 0) for n in range(asked.count))
            event = ReadAnswer(asked.transaction_id, 0xFF, words)
        else:
            value = asked.words[0] if asked.function == 0x06 else len(asked.words)
            event = WriteAnswer(asked.transaction_id, 0xFF, asked.function, asked.address, value)
        self.perform(self.model.received(asked.connection, event, self.now_ns), answer=answer)

    def run_until(self, now_ns: int) -> None:
        while self.model.due_ns is not None and self.model.due_ns <= now_ns:
            self.now_ns = self.model.due_ns
            self.perform(self.model.timer(self.now_ns))
        self.now_ns = now_ns

    def report(self, *segments: Segment, connection: int = 1, answer: bool = True) -> None:
        report = Report(3, 0, response_required=False, devices=(Device(0, segments),))
        self.perform(self.model.received(connection, report, self.now_ns), answer=answer)

    def goose(
        self, message: PowerRequest | StopRequest, st_num: int, sq_num: int = 0, src: bytes = DISPENSER
    ) -> None:
        header = GooseHeader(st_num=st_num, sq_num=sq_num, t_seconds=100 + st_num, t_fraction=1 << 23)
        self.perform(self.model.goose_received(message, header, src, self.now_ns))

    def tell(self, do: str, **arguments: object) -> None:
        """A command."""
        self.perform(self.model.command(command_from({"do": do, **arguments}), self.now_ns))

    def take_asked(self) -> list[tuple[str, str, object]]:
        """What was asked since the last call: ("read" or function, register, value)."""
        asked = [_readable(one) for one in self.asked]
        self.asked.clear()
        return asked

    def take_events(self, *names: str) -> list[dict[str, object]]:
        found = [event.details for event in self.events if event.event in names]
        self.events.clear()
        return found


def _readable(asked: ReadAsked | WriteAsked) -> tuple[str, str, object]:
    found = REGISTERS.at(asked.address)
    assert found is not None
    register, word = found
    assert word == 0
    if isinstance(asked, ReadAsked):
        assert asked.count == register.words
        return ("read", register.key, None)
    return (f"{asked.function:02x}", register.key, decode(register, asked.words))


def power(
    kind: RequirementType = RequirementType.CHARGING,
    voltage_v: float = 400.0,
    current_a: float = 57.5,
    connector_no: int = 5,
) -> PowerRequest:
    return PowerRequest(
        connector_no=connector_no,
        requirement_type=kind,
        mode=PowerRequestMode.CONSTANT_CURRENT,
        voltage_v=voltage_v,
        current_a=current_a,
    )


PLACEHOLDER = power(RequirementType.MODULE_PLACEHOLDER_REQUEST, 0.0, 0.0)
STOP = StopRequest(connector_no=5, reason=StopReason.NORMAL)
