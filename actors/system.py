"""The core as a whole: which actors there are, where Inputs go, what the safe stop does.

`build` makes it, fresh or from a snapshot; the live process and the replayer both use just this.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from ..messages import inputs
from ..messages.config import Config
from . import connector_state, psu_link_state, telemetry_publisher
from .connector import Connector
from .connector_state import ConnectorState
from .dispenser_alarms import DispenserAlarms, DispenserAlarmsState
from .names import DISPENSER_ALARMS, PSU_LINK, TELEMETRY_PUBLISHER, connector_name
from .psu_link import PsuLink
from .psu_link_state import PsuLinkState
from .runtime import ActorSpec, ActorState, Runtime
from .safe_stop import safe_stop
from .telemetry_publisher import TelemetryPublisher, TelemetryPublisherState


def build(config: Config, states: Mapping[str, ActorState] | None = None) -> Runtime:
    """The core, fresh, or as it stood in a snapshot (`restore`)."""
    specs = _specs(config)
    if states is not None:
        specs = [msgspec.structs.replace(spec, initial=states[spec.name]) for spec in specs]
    return Runtime(specs, _router(config), partial(safe_stop, config))


def snapshot(runtime: Runtime) -> dict[str, object]:
    """Every actor's state as what JSON can hold."""
    return {name: msgspec.to_builtins(state) for name, state in runtime.states().items()}


def restore(taken: Mapping[str, object]) -> dict[str, ActorState]:
    """The states of a snapshot. msgspec.ValidationError if it does not fit this version's states."""
    return {name: msgspec.convert(state, _state_type(name)) for name, state in taken.items()}


def _state_type(name: str) -> type[ActorState]:
    match name:
        case "psu_link":
            return PsuLinkState
        case "dispenser_alarms":
            return DispenserAlarmsState
        case "telemetry_publisher":
            return TelemetryPublisherState
        case _ if name.startswith("connector/"):
            return ConnectorState
        case _:
            msg = f"there is no actor {name!r}"
            raise msgspec.ValidationError(msg)


def _specs(config: Config) -> list[ActorSpec]:
    """In the order in which the end of a turn goes round: the link composes its report after all that can
    change a register, and telemetry comes after all that can change a value."""
    connectors = [
        ActorSpec(
            connector_name(number),
            _start(Connector, config=config, number=number),
            connector_state.initial_state(config, number),
        )
        for number in range(1, len(config.connectors) + 1)
    ]
    return [
        *connectors,
        ActorSpec(DISPENSER_ALARMS, _start(DispenserAlarms, config=config), DispenserAlarmsState()),
        ActorSpec(PSU_LINK, _start(PsuLink, config=config), psu_link_state.initial_state(config)),
        ActorSpec(
            TELEMETRY_PUBLISHER,
            _start(TelemetryPublisher, config=config),
            telemetry_publisher.initial_state(config),
        ),
    ]


def _start(actor: Any, **arguments: object) -> Callable[[Runtime, str, Any], object]:
    return partial(actor.start, **arguments)


def _router(config: Config) -> Callable[[inputs.Input], Iterable[str]]:
    """Where Inputs go: names of actors. What names a connector that there is not goes nowhere.

    A table, since in a `match` each class that does not fit costs 0.1 us.
    """
    connectors = [connector_name(number) for number in range(1, len(config.connectors) + 1)]
    by_number = {number: (name,) for number, name in enumerate(connectors, 1)}
    by_global = {
        connector.global_connector_number: (name,)
        for connector, name in zip(config.connectors, connectors, strict=True)
    }
    by_name = {name: (name,) for name in (*connectors, DISPENSER_ALARMS, PSU_LINK, TELEMETRY_PUBLISHER)}

    def to_connector(message: Any) -> Iterable[str]:
        return by_number.get(message.connector, ())

    def to_global_connector(message: Any) -> Iterable[str]:
        return by_global.get(message.connector_no, ())

    def to_owner(message: Any) -> Iterable[str]:
        return by_name.get(message.owner, ())

    def alarm(message: Any) -> Iterable[str]:
        return (DISPENSER_ALARMS,) if message.connector in by_number else ()

    def to(*names: str) -> Callable[[Any], Iterable[str]]:
        return lambda _: names

    ways: dict[type[inputs.Input], Callable[[Any], Iterable[str]]] = {
        inputs.TimerFired: to_owner,
        inputs.HeartbeatReceived: to_connector,
        inputs.SetpointRequested: to_connector,
        inputs.ModeRequested: to_connector,
        inputs.BspEventReceived: to_connector,
        inputs.ImportSetpointRequested: to_connector,
        inputs.HmacKeyReceived: to_connector,
        inputs.SessionEventReceived: to_connector,
        inputs.IsolationMeasured: to_connector,
        inputs.OverVoltageMeasured: to_connector,
        inputs.PowermeterMeasured: to_connector,
        inputs.PowerRequestReplyReceived: to_global_connector,
        inputs.BspErrorRaised: alarm,
        inputs.BspErrorCleared: alarm,
        inputs.ActiveErrorsReceived: to(DISPENSER_ALARMS),
        inputs.BrokerConnected: to(*connectors, DISPENSER_ALARMS, TELEMETRY_PUBLISHER),
        inputs.BrokerDisconnected: to(*connectors, DISPENSER_ALARMS, TELEMETRY_PUBLISHER),
        inputs.Started: to(*connectors, DISPENSER_ALARMS, PSU_LINK),
        inputs.UtcOffsetChanged: to(*connectors, PSU_LINK),
        inputs.ShutdownRequested: to(*connectors),
        inputs.JournalLost: to(*connectors),
        inputs.JournalRestored: to(*connectors),
        inputs.MqttMessageRejected: to(),  # recorded, and logged where it was rejected
    }
    to_psu_link = to(PSU_LINK)
    return lambda message: ways.get(type(message), to_psu_link)(message)


__all__ = ["build", "restore", "snapshot"]
