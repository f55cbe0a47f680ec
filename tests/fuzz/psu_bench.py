"""The PSU model with everything that it wants done turned into bytes, as the mock's server does it."""

import msgspec
from fusioncharger.io.goose_codec import encode
from fusioncharger.io.modbus_psu_codec import PsuCodec, ReadAnswer, WriteAnswer
from fusioncharger.messages.goose import GooseHeader
from fusioncharger.mock.actions import (
    Action,
    BytesAsked,
    DisconnectAsked,
    ListenAsked,
    Observed,
    PowerPublished,
    ReadAsked,
    ReplySent,
    WriteAsked,
)
from fusioncharger.mock.psu_model import PsuModel
from fusioncharger.mock.psu_state import PsuState
from fusioncharger.mock.scenario import Scenario

SECOND_NS = 1_000_000_000
MAC = bytes.fromhex("020000000001")
MAX_ACTIONS = 20_000


class PsuBench:
    """Carries out what the model asks for; nobody answers."""

    def __init__(self, scenario: Scenario | None = None, *, own_keys: bool = False) -> None:
        keys = iter(range(1, 1 << 16))
        self.model = PsuModel(
            PsuState(mac=MAC),
            noise=lambda: 0.5,
            new_key=(lambda: next(keys).to_bytes(48, "big")) if own_keys else None,
            scenario=scenario,
        )
        self.codec = PsuCodec()
        self.now_ns = 0
        self.is_connected = False
        self.actions = 0
        self.asked: list[ReadAsked | WriteAsked] = []
        self.model.listening(0)

    def connect(self) -> None:
        self.codec = PsuCodec()
        self.is_connected = True
        self.perform(self.model.connected(1, "peer", self.now_ns))

    def disconnect(self) -> None:
        self.is_connected = False
        self.asked.clear()
        self.perform(self.model.disconnected(1, "gone"))

    def perform(self, actions: list[Action]) -> None:
        self.actions += len(actions)
        assert self.actions < MAX_ACTIONS, "the model asks without end"
        is_lost = False
        for action in actions:
            match action:
                case ReadAsked():
                    self.asked.append(action)
                    PsuCodec().read(action.transaction_id, 0xFF, action.address, action.count)
                case WriteAsked(function=0x06):
                    self.asked.append(action)
                    PsuCodec().write_single(action.transaction_id, 0xFF, action.address, action.words[0])
                case WriteAsked():
                    self.asked.append(action)
                    PsuCodec().write(action.transaction_id, 0xFF, action.address, action.words)
                case ReplySent():
                    self.send_goose(action)
                case PowerPublished() | Observed():
                    msgspec.json.encode(action)
                case DisconnectAsked():
                    is_lost = True
                case BytesAsked() | ListenAsked():
                    pass
        if is_lost and self.is_connected:
            self.disconnect()

    def send_goose(self, action: ReplySent) -> None:
        header = GooseHeader(st_num=action.st_num, sq_num=action.sq_num, t_seconds=0, t_fraction=0)
        encode(action.message, header, dst=action.dst, src=MAC, vlan_id=0, vlan_priority=5, key=action.key)

    def go_to(self, now_ns: int, most: int = 200) -> None:
        """Let time go by, with the timers that fire; at most so many."""
        for _ in range(most):
            due_ns = self.model.due_ns
            if due_ns is None or due_ns > now_ns:
                break
            self.now_ns = max(self.now_ns, due_ns)
            self.perform(self.model.timer(self.now_ns))
            self.answered()
        self.now_ns = max(self.now_ns, now_ns)

    def answered(self) -> None:
        """For a bench with a dispenser."""


class AnsweringBench(PsuBench):
    """With a dispenser of four connectors that answers at once, connects whenever it can, and charges."""

    def run(self) -> None:
        self.connect()
        self.answered()
        for second in range(1, 12):
            self.go_to(second * SECOND_NS)
            if not self.is_connected:
                self.connect()
            self.answered()

    def answered(self) -> None:
        while self.asked and self.is_connected:
            asked = self.asked.pop(0)
            if isinstance(asked, ReadAsked):
                value = 4 if asked.address == 0x1015 else 0
                event: ReadAnswer | WriteAnswer = ReadAnswer(asked.transaction_id, 0xFF, (value,) * asked.count)
            else:
                value = asked.words[0] if asked.function == 0x06 else len(asked.words)
                event = WriteAnswer(asked.transaction_id, 0xFF, asked.function, asked.address, value)
            self.perform(self.model.received(1, event, self.now_ns))
