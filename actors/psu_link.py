"""The link to the PSU: register image, Modbus answers, unsolicited reports, and the link's life
(protocol.md §2, behaviour.md §2).

    UNINITIALIZED ─► INITIALIZING ─► READY (psu_mac received)
                          ▲  │          │
                  backoff │  ▼          ▼
                         FAILED  ◄──────┘   refused, closed, protocol error, silent

The image holds every register's words: what the dispenser owns from the start, what the PSU owns only once it
was written on the present connection. Connectors and DispenserAlarms push what they own as it changes, so each
read is answered from the image in its own turn. A report is composed at the end of the turn, once.
"""

from typing import Any

from ..messages import inputs
from ..messages.config import Config
from ..messages.internal import (
    ChargingEventOccurred,
    DatapointsChanged,
    Internal,
    LinkLost,
    PsuAlarmsChanged,
    PsuForgotten,
    PsuMacKnown,
    PsuRunningModeChanged,
    RatingsChanged,
    RegistersChanged,
    SecondPassed,
)
from ..messages.outputs import (
    ExceptionAnswered,
    HmacKeysForgotten,
    HmacKeysRetired,
    PsuConnectRequested,
    PsuDisconnectRequested,
    ReadAnswered,
    ReportSent,
    Segment,
    TelemetryValue,
    WriteAnswered,
)
from ..messages.registers import Owner, RegisterMap, encode, zeros
from ..messages.types import Level, LinkPhase
from ..telemetry.datapoints import of_psu_register, psu_values_unknown
from .names import TELEMETRY_PUBLISHER, connector_name
from .psu_link_state import (
    BACKOFF_MIN_NS,
    FORGET_AFTER_NS,
    FORGET_TIMER,
    LIVENESS_TIMER,
    RATING_REGISTERS,
    RECONNECT_TIMER,
    REPORT_TIMER,
    SECOND_TIMER,
    PsuLinkState,
    alarms,
    image,
    ratings,
    reported,
    reported_registers,
    without_psu,
)
from .runtime import SECOND_NS, CoreActor, Runtime

BACKOFF_MAX_NS = SECOND_NS
STABLE_AFTER_NS = 10 * SECOND_NS
"""READY for this long: the next reconnect starts with the shortest backoff again."""
WARNING_INTERVAL_NS = 60 * SECOND_NS
FAILURES_KEPT = 8

# A member taken from its class costs 0.1 us in Python 3.11, and this one is looked at for every ADU.
_FAILED = LinkPhase.FAILED
ILLEGAL_ADDRESS = 0x02
ADDRESS_SPACE = 0x10000

# A change of one of these registers is reported at once (protocol.md §2.1).
_REPORTED_AT_ONCE = {
    "door_status_alarm",
    "water_alarm",
    "epo_alarm",
    "tilt_alarm",
    "dc_output_contactor_fault",
    "working_status",
    "connection_status",
    "contactor_status",
}


class PsuLink(CoreActor[PsuLinkState]):
    """The dispenser's side of the Modbus link."""

    def __init__(self, runtime: Runtime, name: str, state: PsuLinkState, *, config: Config) -> None:
        super().__init__(runtime, name, state)
        self._map = RegisterMap(len(config.connectors))
        self._numbers = range(1, len(config.connectors) + 1)
        self._connector_nos = [connector.global_connector_number for connector in config.connectors]
        self._liveness_ns = int(config.modbus_timeout_s * SECOND_NS)
        self._kept = {
            register.key
            for register in self._map.registers
            if register.owner is Owner.PSU and register.name != "hmac_key"
        }
        """What the PSU may write, and is remembered."""
        self._reported = reported_registers(self._map)
        self._time_sync = self._map.by_key["time_sync"]
        self._composed: tuple[dict[str, tuple[int, ...]], tuple[Segment, ...]] = {}, ()
        """Registers, and what a report shows of them but for time_sync: they change less often than a report is
        sent. No state: it follows from the registers."""
        self._reported_at_once = {
            register.key for register in self._map.registers if register.name in _REPORTED_AT_ONCE
        }

    def handle(self, message: Any) -> None:
        match message:
            # The frequent ones first: a class that does not fit costs 0.1 us.
            case RegistersChanged(values=values):
                self._registers_changed(values)
            case inputs.RegistersWritten() | inputs.RegistersRead():
                self._from_psu(message)
            case ChargingEventOccurred(connector=number, event=event):
                key = f"{number}/charging_event"
                words = (int(event),)
                self.change(
                    registers={**self.state.registers, key: words},
                    pending_events={**self.state.pending_events, key: words},
                )
            case inputs.Started():
                self._started(message)
            case inputs.UtcOffsetChanged(utc_offset_ns=offset):
                self.change(utc_offset_ns=offset)
            case inputs.GooseFramesDropped():
                self._frames_dropped(message)
            case _:
                self._from_psu(message)

    def timer_fired(self, name: str) -> None:
        if name == SECOND_TIMER:
            self.start_timer(SECOND_TIMER, SECOND_NS)
            self._tell_connectors(SecondPassed())
        elif name == REPORT_TIMER:
            self.change(report_due=True)
        elif name == RECONNECT_TIMER:
            self._connect()
        elif name == LIVENESS_TIMER:
            self._check_liveness()
        elif name == FORGET_TIMER:
            self._forget_psu()
        else:
            super().timer_fired(name)

    def _from_psu(self, message: Any) -> None:
        if message.connection != self.state.connection or self.state.phase is _FAILED:
            return  # left over from a former connection, or from one that was given up
        match message:
            case inputs.RegistersWritten():
                self._heard()
                self._written(message)
            case inputs.RegistersRead():
                self._heard()
                self._read(message)
            case inputs.ModbusRequestRefused():
                self._heard()
                self._warn_rarely("Modbus request refused", message.reason)
                self._except(message, message.function, message.exception_code)
            case inputs.UnexpectedPduReceived(function=function):
                self._heard()
                self._warn_rarely("Modbus PDU ignored", f"function 0x{function:02x}")
            case inputs.PsuConnected():
                self._connected()
            case inputs.PsuConnectFailed(reason=reason) | inputs.PsuDisconnected(reason=reason):
                self._failed(reason)

    def _heard(self) -> None:
        self.change(heard_at_ns=self.at_ns)

    # --- the link's life -----------------------------------------------------------------------------------

    def _started(self, message: inputs.Started) -> None:
        macs = {
            f"{number}/mac_address": encode(self._map.by_key[f"{number}/mac_address"], message.goose_mac)
            for number in self._numbers
        }
        self.change(registers={**self.state.registers, **macs}, utc_offset_ns=message.utc_offset_ns)
        self.start_timer(SECOND_TIMER, SECOND_NS)
        self._connect()

    def _connect(self) -> None:
        connection = self.state.connection + 1
        self.change(phase=LinkPhase.INITIALIZING, connection=connection, heard_at_ns=self.at_ns)
        self.start_timer(LIVENESS_TIMER, self._liveness_ns)
        self.emit(PsuConnectRequested(connection=connection))

    def _connected(self) -> None:
        if not self.state.said_failures:  # else it is told when the link is ready
            self.log(Level.INFO, "connected to the PSU")
        self.change(connected=True, next_transaction_id=0, pending_events={}, heard_at_ns=self.at_ns)
        self.start_timer(REPORT_TIMER, SECOND_NS)

    def _check_liveness(self) -> None:
        if not self.state.connected:
            # Connecting and the TLS handshake have time limits of their own, and always come to an end.
            self.start_timer(LIVENESS_TIMER, self._liveness_ns)
            return
        # One timer that looks back, instead of one that every ADU restarts.
        silent_ns = self.at_ns - self.state.heard_at_ns
        if silent_ns < self._liveness_ns:
            self.start_timer(LIVENESS_TIMER, self._liveness_ns - silent_ns)
            return
        reason = f"nothing received for {silent_ns / SECOND_NS:.0f} s"
        self.emit(PsuDisconnectRequested(connection=self.state.connection, reason=reason))
        self._failed(reason)

    def _failed(self, reason: str) -> None:
        state = self.state
        was_connected = state.connected
        self._say_failure(reason)
        stable = state.phase is LinkPhase.READY and self.at_ns - state.ready_at_ns >= STABLE_AFTER_NS
        backoff_ns = BACKOFF_MIN_NS if stable else state.backoff_ns
        self.cancel_timer(REPORT_TIMER)
        self.cancel_timer(LIVENESS_TIMER)
        self.state = without_psu(self.state, self._map)
        self.change(backoff_ns=min(2 * backoff_ns, BACKOFF_MAX_NS))
        self.start_timer(RECONNECT_TIMER, backoff_ns)
        if was_connected:
            self._lose_psu()

    def _say_failure(self, reason: str) -> None:
        """Once for each reason until the link is ready again: it is tried for ever, every second."""
        said = self.state.said_failures
        if reason not in said:
            self.log(Level.WARNING, f"link to the PSU failed: {reason}; trying again")
            self.change(said_failures=(*said, reason)[-FAILURES_KEPT:])

    def _lose_psu(self) -> None:
        """A connection that stood is gone: nothing received counts any more, and power has to stop."""
        connection = self.state.connection
        self.emit(HmacKeysRetired(connection=connection))
        self._tell_connectors(LinkLost(connection=connection))
        for topic, values in psu_values_unknown(self._connector_nos).items():
            self.tell(TELEMETRY_PUBLISHER, DatapointsChanged(topic=topic, values=values))
        self.change(losses=(*self.state.losses, (connection, self.at_ns + FORGET_AFTER_NS)))
        if len(self.state.losses) == 1:
            self.start_timer(FORGET_TIMER, FORGET_AFTER_NS)

    def _forget_psu(self) -> None:
        """The oldest loss is too long ago; what a newer connection brought stays."""
        (connection, _), *later = self.state.losses
        self.change(losses=tuple(later))
        self.emit(HmacKeysForgotten(connection=connection))
        self._tell_connectors(PsuForgotten(connection=connection))
        if later:
            self.start_timer(FORGET_TIMER, later[0][1] - self.at_ns)

    def _frames_dropped(self, message: inputs.GooseFramesDropped) -> None:
        example = f"; {message.example}" if message.example else ""
        if message.counts:
            # Where some are accepted under suspicion, it is them that the example is about.
            text = _counts_text(message.counts) + ("" if message.suspected else example)
            self._warn_rarely("GOOSE frames dropped", text)
        if message.suspected:
            text = _counts_text(message.suspected) + example
            self._warn_rarely("GOOSE frames accepted that look played again", text)

    def _warn_rarely(self, kind: str, text: str) -> None:
        """A warning of a kind that a peer can cause as often as it likes: one a minute, all in the journal."""
        if self.at_ns < self.state.quiet_until_ns.get(kind, 0):
            return
        self.log(Level.WARNING, f"{kind} ({text}); further ones are only in the journal for a minute")
        self.change(quiet_until_ns={**self.state.quiet_until_ns, kind: self.at_ns + WARNING_INTERVAL_NS})

    # --- requests ------------------------------------------------------------------------------------------

    def _read(self, message: inputs.RegistersRead) -> None:
        if message.address + message.count > ADDRESS_SPACE:
            return self._except(message, 0x03, ILLEGAL_ADDRESS)
        words = [0] * message.count
        for register, first_word, position, count in self._map.covered(message.address, message.count):
            now = image(self.state, register, self.at_ns)
            words[position : position + count] = now[first_word : first_word + count]
        return self.emit(
            ReadAnswered(
                connection=message.connection,
                transaction_id=message.transaction_id,
                unit_id=message.unit_id,
                words=tuple(words),
            )
        )

    def _written(self, message: inputs.RegistersWritten) -> None:
        count = len(message.words)
        if message.address + count > ADDRESS_SPACE:
            return self._except(message, message.function, ILLEGAL_ADDRESS)
        changed: dict[str, tuple[int, ...]] = {}
        for register, first_word, position, part in self._map.covered(message.address, count):
            if register.key not in self._kept:
                continue
            former = self.state.registers.get(register.key)
            words = message.words[position : position + part]
            if part < register.words:
                rest = former or zeros(register)
                words = rest[:first_word] + words + rest[first_word + part :]
            if former != words:
                changed[register.key] = words
        if changed:
            self.change(registers={**self.state.registers, **changed})
            self._psu_values_changed(changed)
        return self.emit(
            WriteAnswered(
                connection=message.connection,
                transaction_id=message.transaction_id,
                unit_id=message.unit_id,
                function=message.function,
                address=message.address,
                value=message.words[0] if message.function == 0x06 else count,
            )
        )

    def _psu_values_changed(self, changed: dict[str, tuple[int, ...]]) -> None:
        topics: dict[str, dict[str, TelemetryValue]] = {}
        for key, words in changed.items():
            datapoint = of_psu_register(self._map.by_key[key], words, self._connector_nos)
            if datapoint is not None:
                topic, name, value = datapoint
                topics.setdefault(topic, {})[name] = value
        for topic, values in topics.items():
            self.tell(TELEMETRY_PUBLISHER, DatapointsChanged(topic=topic, values=values))
        if "psu_running_mode" in changed:
            value = topics["psu"]["psu_running_mode"]
            self.log(Level.INFO, f"PSU running mode {value}")
            mode = changed["psu_running_mode"][0]
            self._tell_connectors(PsuRunningModeChanged(connection=self.state.connection, mode=mode))
        if any(self._map.by_key[key].alarm for key in changed):
            self._tell_connectors(PsuAlarmsChanged(alarms=alarms(self.state, self._map)))
        for number in self._numbers:
            if any(f"{number}/{name}" in changed for name in RATING_REGISTERS):
                now = ratings(self.state, self._map, number)
                self.tell(connector_name(number), RatingsChanged(ratings=now))
        if "psu_mac" in changed and any(changed["psu_mac"]):
            self._mac_known(changed["psu_mac"])

    def _mac_known(self, words: tuple[int, ...]) -> None:
        mac = b"".join(word.to_bytes(2, "big") for word in words)
        self.log(Level.INFO, f"PSU's MAC for GOOSE is {mac.hex(':')}")
        if self.state.phase is not LinkPhase.READY:
            self.change(phase=LinkPhase.READY, ready_at_ns=self.at_ns, said_failures=())
        self._tell_connectors(PsuMacKnown(connection=self.state.connection, mac=mac))

    def _tell_connectors(self, message: Internal) -> None:
        for number in self._numbers:
            self.tell(connector_name(number), message)

    def _except(
        self,
        message: inputs.RegistersRead | inputs.RegistersWritten | inputs.ModbusRequestRefused,
        function: int,
        code: int,
    ) -> None:
        self.emit(
            ExceptionAnswered(
                connection=message.connection,
                transaction_id=message.transaction_id,
                unit_id=message.unit_id,
                function=function,
                exception_code=code,
            )
        )

    # --- reports -------------------------------------------------------------------------------------------

    def _registers_changed(self, values: dict[str, tuple[int, ...]]) -> None:
        self.change(registers={**self.state.registers, **values})
        if self.state.connected and not self._reported_at_once.isdisjoint(values):
            self.change(report_due=True)

    def end_turn(self) -> None:
        if not self.state.report_due:
            return
        transaction_id = self.state.next_transaction_id
        segments = self._segments()
        self.emit(
            ReportSent(connection=self.state.connection, transaction_id=transaction_id, segments=segments)
        )
        self.change(
            report_due=False, pending_events={}, next_transaction_id=(transaction_id + 1) % ADDRESS_SPACE
        )
        self.start_timer(REPORT_TIMER, SECOND_NS)

    def _segments(self) -> tuple[Segment, ...]:
        """What the report shows. While no register changes, only time_sync does, the first segment."""
        state = self.state
        registers, unchanged = self._composed
        if registers is state.registers and not state.pending_events:
            return (Segment(self._time_sync.address, image(state, self._time_sync, self.at_ns)), *unchanged)
        segments = reported(state, self._reported, self.at_ns)
        if not state.pending_events:
            self._composed = state.registers, segments[1:]
        return segments


def _counts_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in counts.items())
