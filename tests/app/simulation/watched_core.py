"""The core on virtual time with the oracle beside it, which may be shown other Outputs than the core's;
and steps that hypothesis makes sequences of."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from core_harness import Core, make_config
from fusioncharger.actors.runtime import ActorState
from fusioncharger.app.simulation.invariants import Invariants, InvariantViolated
from fusioncharger.messages import inputs, outputs
from fusioncharger.messages.config import Config
from fusioncharger.messages.types import BspEvent, ChargingPhase, Mode, RequirementType
from hypothesis import strategies as st
from msgspec.structs import replace

Made = list[outputs.AnyOutput]
Alter = Callable[[inputs.Input, Made], Made]
Do = Callable[["WatchedCore"], object]
AlterStates = Callable[[dict[str, ActorState]], Mapping[str, ActorState]]

SETTINGS = (
    'telemetry_topic_prefix = "t"\nerror_history = "errors"\n',
    "send_secure_goose = false\nverify_secure_goose = false\n",
    "everest_timeout_s = 2\nmodule_placeholder_allocation_timeout_s = 1.5\nmodbus_timeout_s = 5\n",
)
MEASUREMENTS = (inputs.PowermeterMeasured, inputs.OverVoltageMeasured, inputs.IsolationMeasured)
CONFIGS = tuple(make_config(2, settings) for settings in SETTINGS)


class WatchedCore(Core):
    """The core; the oracle sees every turn, if need be with Outputs or states that are not the core's."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or make_config(2))
        self.oracle = Invariants(self.config)
        self.alter: Alter | None = None
        """What the oracle sees instead of the Outputs."""
        self.alter_states: AlterStates | None = None
        self.is_connecting = False
        """A connection was asked for and has not been answered."""
        self.is_connected = False

    def _turn(self, message: inputs.Input) -> Made:
        made = super()._turn(message)
        stamped = replace(message, at_ns=self.at_ns)
        self._follow(stamped, made)
        seen = made if self.alter is None else self.alter(stamped, list(made))
        states = self.runtime.states()
        self.oracle.turn(stamped, seen, states if self.alter_states is None else self.alter_states(states))
        return made

    def _follow(self, message: inputs.Input, made: Made) -> None:
        if isinstance(message, inputs.PsuConnected):
            self.is_connecting, self.is_connected = False, True
        elif isinstance(message, inputs.PsuDisconnected | inputs.PsuConnectFailed):
            self.is_connecting = self.is_connected = False
        for output in made:
            if isinstance(output, outputs.PsuConnectRequested):
                self.is_connecting, self.is_connected = True, False
            elif isinstance(output, outputs.PsuDisconnectRequested):
                self.is_connecting = self.is_connected = False

    def measure(self, kind: type[inputs.Input], connector: int = 1, voltage_v: float = 400.0) -> Made:
        """A device speaks."""
        fields: dict[str, Any] = {"connector": connector, "voltage_v": voltage_v}
        if kind is inputs.PowermeterMeasured:
            fields["current_a"] = 20.0
        return self.feed(kind(**fields))

    def lose_link_twice(self) -> None:
        """The second time after a key without the MAC: that is one outage, and by then one of 9.5 s."""
        self.disconnect()
        self.advance(0.02)
        self.feed(inputs.PsuConnected(connection=self.connection))
        self.advance(9.5)
        self.key()
        self.reply()
        self.disconnect()

    def perform(self, step: tuple[Any, ...]) -> None:
        """One of STEPS. What the world cannot do now (a write without a connection) is left out."""
        name, *values = step
        if name in ON_LINK and not self.is_connected:
            return
        getattr(self, f"step_{name}")(*values)

    # --- steps -----------------------------------------------------------------------------------------------

    def step_connect(self) -> None:
        self.advance(1.1)
        if self.is_connecting:
            self.connect()
            self.write("psu_running_mode", 1)

    def step_refuse(self) -> None:
        self.advance(1.1)
        if self.is_connecting:
            self.feed(inputs.PsuConnectFailed(connection=self.connection, reason="refused"))

    def step_lose_link(self) -> None:
        self.disconnect()

    def step_plug_in(self, connector: int) -> None:
        self.plug_in(connector)

    def step_plug_out(self, connector: int) -> None:
        self.plug_out(connector)

    def step_key(self, connector: int) -> None:
        self.key(connector)

    def step_reply(self, connector: int, result: int, verified: int) -> None:
        self.reply(connector, result, verified=(verified,) if verified else ())

    def step_charge(self, connector: int) -> None:
        self.to_charging(connector=connector)

    def step_ask(self, connector: int) -> None:
        """EVerest asks for power before there is a key."""
        self.plug_in(connector)
        self.setpoint(300, 30, connector)
        self.export(connector=connector)

    def step_mode(self, connector: int, mode: Mode, phase: ChargingPhase) -> None:
        self.mode(mode, phase, connector)

    def step_setpoint(self, connector: int, voltage_v: float, current_a: float) -> None:
        self.setpoint(voltage_v, current_a, connector)

    def step_heartbeat(self, connector: int, heartbeat_id: int, is_again: bool) -> None:
        self.heartbeat(heartbeat_id, connector, redelivered=is_again)

    def step_write(self, address: int, words: list[int]) -> None:
        self.write_words(address, tuple(words))

    def step_read(self, address: int, count: int) -> None:
        self.transaction += 1
        self.feed(
            inputs.RegistersRead(
                connection=self.connection,
                transaction_id=self.transaction,
                unit_id=1,
                address=address,
                count=count,
                adu=b"",
            )
        )

    def step_runs(self, mode: int) -> None:
        self.write("psu_running_mode", mode)

    def step_rating(self, connector: int, name: str, value: float) -> None:
        self.write(f"{connector}/{name}", value)

    def step_broker(self, is_there: bool) -> None:
        there = inputs.BrokerConnected(session_present=False)
        self.feed(there if is_there else inputs.BrokerDisconnected(reason="gone"))

    def step_journal(self, is_there: bool) -> None:
        self.feed(inputs.JournalRestored() if is_there else inputs.JournalLost(reason="disk full"))

    def step_bsp(self, connector: int, event: BspEvent) -> None:
        self.feed(inputs.BspEventReceived(connector=connector, event=event))

    def step_error(self, connector: int, error_type: str, sub_type: str, is_raised: bool) -> None:
        kind = inputs.BspErrorRaised if is_raised else inputs.BspErrorCleared
        self.feed(kind(connector=connector, error_type=error_type, sub_type=sub_type))

    def step_active_errors(self, connectors: list[int]) -> None:
        errors = tuple(inputs.BspError(number, "TiltDetected") for number in connectors)
        self.feed(inputs.ActiveErrorsReceived(errors=errors))

    def step_session(self, connector: int, event: str) -> None:
        self.feed(inputs.SessionEventReceived(connector=connector, event=event, reason="EVConnected"))

    def step_measure(self, connector: int, kind: type[inputs.Input], voltage_v: float) -> None:
        self.measure(kind, connector, voltage_v)

    def step_wait(self, seconds: float) -> None:
        self.advance(seconds)


ON_LINK = ("lose_link", "key", "charge", "write", "read", "runs", "rating")
_N = st.integers(1, 2)
_WORD = st.integers(0, 0xFFFF)
_VOLTS = st.sampled_from([0.0, -1.0, 50.0, 400.0, 500.3, 2000.0, 1e39])
_AMPERES = st.sampled_from([0.0, -1.0, 0.5, 20.0, 300.0, 1e39])
_RATINGS = st.sampled_from(
    ["max_rated_psu_voltage", "min_rated_psu_voltage", "max_rated_psu_current", "rated_output_power_psu"]
)
_ERRORS = st.sampled_from(["TiltDetected", "MREC8EmergencyStop", "MREC17EVSEContactorFault", "Unheard"])
_EVENTS = st.sampled_from(["SessionStarted", "TransactionStarted", "SessionFinished"])


def _step(name: str, *values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *values)


STEPS = st.one_of(
    _step("connect"),
    _step("refuse"),
    _step("lose_link"),
    _step("plug_in", _N),
    _step("plug_out", _N),
    _step("key", _N),
    _step("reply", _N, st.integers(0, 2), st.integers(0, 2)),
    _step("charge", _N),
    _step("charge", _N),
    _step("ask", _N),
    _step("mode", _N, st.sampled_from(Mode), st.sampled_from(ChargingPhase)),
    _step("mode", _N, st.just(Mode.EXPORT), st.sampled_from(ChargingPhase)),
    _step("setpoint", _N, _VOLTS, _AMPERES),
    _step("heartbeat", _N, st.integers(0, 5), st.booleans()),
    _step("heartbeat", _N, st.integers(100, 110), st.just(value=False)),
    _step("write", st.integers(0x2000, 0x212F), st.lists(_WORD, min_size=1, max_size=30)),
    _step("write", st.integers(0x4000, 0x40F0), st.lists(st.integers(0, 2), min_size=1, max_size=9)),
    _step("read", _WORD, st.integers(1, 125)),
    _step("read", st.sampled_from([0x0000, 0x1000, 0x1100, 0x1D00, 0x3000]), st.just(125)),
    _step("runs", st.integers(0, 2)),
    _step("rating", _N, _RATINGS, st.sampled_from([0.0, 50.0, 300.0, 1000.0, float("nan")])),
    _step("broker", st.booleans()),
    _step("journal", st.booleans()),
    _step("bsp", _N, st.sampled_from(BspEvent)),
    _step("error", _N, _ERRORS, st.sampled_from(["", "a"]), st.booleans()),
    _step("active_errors", st.lists(_N, max_size=3)),
    _step("session", _N, _EVENTS),
    _step("measure", _N, st.sampled_from(MEASUREMENTS), _VOLTS),
    _step("wait", st.sampled_from([0.001, 0.5, 1.2, 3.0, 6.0, 12.0])),
)
PLACEHOLDER = RequirementType.MODULE_PLACEHOLDER_REQUEST


# --- what the oracle is shown instead ------------------------------------------------------------------------


def dropped(*kinds: type, connector: int = 0) -> Alter:
    """Without the Outputs of some kinds."""

    def alter(_: inputs.Input, made: Made) -> Made:
        return [o for o in made if not isinstance(o, kinds) or connector not in (0, getattr(o, "connector", 0))]

    return alter


def changed(kind: type, **fields: Any) -> Alter:
    """With other fields in the Outputs of a kind."""

    def alter(_: inputs.Input, made: Made) -> Made:
        return [replace(o, **fields) if isinstance(o, kind) else o for o in made]

    return alter


def doubled(kind: type, **fields: Any) -> Alter:
    """With the Outputs of a kind twice."""

    def alter(_: inputs.Input, made: Made) -> Made:
        return [twice for o in made for twice in ([o, replace(o, **fields)] if isinstance(o, kind) else [o])]

    return alter


def added(*more: outputs.AnyOutput) -> Alter:
    """With more Outputs."""
    return lambda _, made: [*made, *more]


def charging(settings: str = "") -> WatchedCore:
    """Two connectors, the first one charging."""
    core = WatchedCore(make_config(2, settings))
    core.ready().to_charging()
    core.write("psu_running_mode", 1)
    return core


def found(core: WatchedCore, name: str, act: Do) -> None:
    """The oracle finds a violation of that name in what is done."""
    with pytest.raises(InvariantViolated) as caught:
        act(core)
    assert caught.value.name == name, caught.value
