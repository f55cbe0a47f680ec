"""Curves and markers from the recorded messages; bands, too, as far as messages tell of them, for a log that
this version cannot replay.
"""

from collections.abc import Mapping

from ...actors.connector_state import ConnectorState
from ...actors.runtime import ActorState
from ...messages import inputs, outputs
from ...messages.registers import RegisterMap, decode
from ...messages.types import Mode
from ...telemetry.units import finite
from ..log_format import type_name
from ..reader import RecordedOutput, Turn, UnsupportedFormatError
from .bands import AC_INPUT_CURVES, error_name, running_mode
from .lanes import AC_INPUT, SYSTEM, Marker, Timeline, Tone

_REGISTERS = RegisterMap(1)
_WATCHED = frozenset(key for key, _, _ in AC_INPUT_CURVES)
_DRAWN = frozenset(
    kind.__name__
    for kind in (
        outputs.PowerRequested,
        outputs.StopRequested,
        outputs.GooseSilenced,
        outputs.ErrorRaised,
        outputs.ErrorCleared,
        outputs.TurnFailed,
        outputs.ModePublished,
    )
)
"""Outputs that show in the timeline; the others need not be decoded."""

MODE_TONES = {Mode.OFF: Tone.IDLE, Mode.EXPORT: Tone.ACTIVE, Mode.IMPORT: Tone.BAD, Mode.FAULT: Tone.BAD}


class Recorded:
    """Keeps the timeline up with what was recorded."""

    def __init__(self, timeline: Timeline, local_numbers: dict[int, int]) -> None:
        """`local_numbers`: local connector number by global one."""
        self._timeline = timeline
        self._local = local_numbers
        self.draws_bands = False
        """True: there are no states to take the bands from."""
        self._at_us = 0
        self._row = 0
        self._learned = False
        self._raised: dict[tuple[int, str], bool] = {}
        """Errors by connector and name: whether EVerest knows them as raised. At times it is told all of them
        again (behaviour.md §8.2); only what is new to it is an event."""

    def learn(self, states: Mapping[str, ActorState]) -> None:
        """These are the states before a turn; the first ones count."""
        if self._learned:
            return
        self._learned = True
        for name, state in states.items():
            if isinstance(state, ConnectorState):
                number = int(name.rpartition("/")[2])
                for fault in state.raised:
                    self._raised[number, error_name(fault.error_type, fault.sub_type)] = True

    def show(self, at_us: int, row: int, turn: Turn) -> None:
        """The turn happened then; it stands in that row of the table."""
        self._at_us, self._row = at_us, row
        self._input(turn.input)
        if self.draws_bands:
            self._bands(turn.input)
        for number, output in enumerate(turn.outputs, 1):
            if not output.intact:
                self._mark(SYSTEM, "altered", f"output {number} of turn {turn.number}: its checksum fails")
            elif type_name(output.payload) in _DRAWN:
                self._recorded_output(output)

    def _mark(self, group: int, kind: str, text: str) -> None:
        self._timeline.mark(Marker(self._at_us, self._row, group, kind, text))

    def _input(self, message: inputs.AnyInput) -> None:
        match message:
            case inputs.SetpointRequested():
                self._points(message.connector, setpoint_v=message.voltage_v, setpoint_a=message.current_a)
            case inputs.PowermeterMeasured():
                self._points(message.connector, output_v=message.voltage_v, output_a=message.current_a)
            case inputs.IsolationMeasured():
                self._points(message.connector, imd_v=message.voltage_v)
            case inputs.OverVoltageMeasured():
                self._points(message.connector, ovm_v=message.voltage_v)
            case inputs.BspErrorRaised():
                text = f"board support: {error_name(message.error_type, message.sub_type)}"
                self._mark(message.connector, "error", text)
            case inputs.BspErrorCleared():
                text = f"board support cleared: {error_name(message.error_type, message.sub_type)}"
                self._mark(message.connector, "cleared", text)
            case _:
                self._refusal(message)
                self._incident(message)

    def _refusal(self, message: inputs.AnyInput) -> None:
        match message:
            case inputs.GooseFramesDropped():
                for what, counts in (
                    ("dropped", message.counts),
                    ("accepted that look played again", message.suspected),
                ):
                    text = ", ".join(f"{count} of {reason}" for reason, count in counts.items())
                    if text:
                        self._mark(SYSTEM, "drop", f"GOOSE frames {what}: {text}")
            case inputs.MqttMessageRejected():
                self._mark(SYSTEM, "drop", f"MQTT message rejected: {message.topic}: {message.reason}")
            case inputs.ModbusRequestRefused():
                self._mark(SYSTEM, "drop", f"Modbus request refused: {message.reason}")
            case inputs.UnexpectedPduReceived():
                self._mark(SYSTEM, "drop", f"unexpected Modbus PDU, function 0x{message.function:02x}")
            case inputs.PowerRequestReplyReceived() if message.result != 0:
                group = self._local.get(message.connector_no, SYSTEM)
                self._mark(group, "refused", f"PSU refused a power request (result {message.result})")

    def _incident(self, message: inputs.AnyInput) -> None:
        match message:
            case inputs.PsuDisconnected():
                self._mark(SYSTEM, "error", f"PSU disconnected: {message.reason}")
            case inputs.BrokerConnected():
                self._band("broker", "connected", Tone.ACTIVE)
            case inputs.BrokerDisconnected():
                self._band("broker", "away", Tone.BAD)
                self._mark(SYSTEM, "error", f"broker disconnected: {message.reason}")
            case inputs.JournalLost():
                self._mark(SYSTEM, "error", f"journal lost: {message.reason}")
            case inputs.JournalRestored():
                self._mark(SYSTEM, "cleared", "journal restored")
            case inputs.Started():
                self._band("broker", "not connected yet", Tone.PREPARING)
                self._mark(SYSTEM, "begin", "the driver started")
            case inputs.ShutdownRequested():
                self._mark(SYSTEM, "end", f"shutdown: {message.reason}")
            case inputs.UtcOffsetChanged():
                self._mark(SYSTEM, "clock", "UTC was set: times of day jump here")

    def _recorded_output(self, output: RecordedOutput) -> None:
        try:
            message = output.message()
        except UnsupportedFormatError:
            return  # the turn differs then, and is marked for it
        match message:
            case outputs.PowerRequested():
                self._points(message.connector, asked_v=message.voltage_v, asked_a=message.current_a)
            case outputs.StopRequested() | outputs.GooseSilenced():
                self._points(message.connector, asked_v=None, asked_a=None)
            case outputs.ErrorRaised():
                self._error(message, is_raised=True)
            case outputs.ErrorCleared():
                self._error(message, is_raised=False)
            case outputs.TurnFailed():
                text = f"{message.actor} raised {message.exception_type}: {message.message}"
                self._mark(SYSTEM, "failed", text)
            case outputs.ModePublished() if self.draws_bands:
                mode = message.mode
                self._timeline.set_band(self._at_us, message.connector, "mode", mode.value, MODE_TONES[mode])

    def _error(self, message: outputs.ErrorRaised | outputs.ErrorCleared, *, is_raised: bool) -> None:
        name = error_name(message.error_type, message.sub_type)
        if self._raised.get((message.connector, name), False) == is_raised:
            return
        self._raised[message.connector, name] = is_raised
        kind, what = ("error", "raised") if is_raised else ("cleared", "cleared")
        self._mark(message.connector, kind, f"{name} {what}: {message.message}")

    def _points(self, connector: int, **values: float | None) -> None:
        for key, value in values.items():
            self._timeline.set_point(self._at_us, connector, key, value)

    # --- what a log that cannot be replayed still tells -----------------------------------------------------

    def _bands(self, message: inputs.AnyInput) -> None:
        match message:
            case inputs.PsuConnected():
                self._band("link", "connected", Tone.ACTIVE)
            case inputs.PsuConnectFailed() | inputs.PsuDisconnected():
                self._band("link", "not connected", Tone.BAD)
            case inputs.RegistersWritten():
                self._registers(message)

    def _registers(self, message: inputs.RegistersWritten) -> None:
        for register, word, position, count in _REGISTERS.covered(message.address, len(message.words)):
            if word or count < register.words:
                continue
            words = message.words[position : position + count]
            if register.key == "psu_running_mode":
                self._band("running_mode", *running_mode(words[0]))
            elif register.key in _WATCHED and isinstance(value := decode(register, words), float):
                self._timeline.set_point(self._at_us, AC_INPUT, register.key, finite(value))

    def _band(self, key: str, text: str, tone: Tone) -> None:
        self._timeline.set_band(self._at_us, SYSTEM, key, text, tone)
