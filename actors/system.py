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
    """Where Inputs go: names of actors. What names a connector that there is not goes nowhere."""
    connectors = [connector_name(number) for number in range(1, len(config.connectors) + 1)]
    by_number = {number: (name,) for number, name in enumerate(connectors, 1)}
    by_global = {
        connector.global_connector_number: (name,)
        for connector, name in zip(config.connectors, connectors, strict=True)
    }
    to_psu_link = (PSU_LINK,)
    everyone = (*connectors, DISPENSER_ALARMS, PSU_LINK, TELEMETRY_PUBLISHER)
    by_owner = {name: (name,) for name in everyone}

    def route(message: inputs.Input) -> Iterable[str]:
        match message:
            # The frequent ones first.
            case inputs.RegistersWritten() | inputs.RegistersRead():
                return to_psu_link
            case inputs.TimerFired():
                return by_owner.get(message.owner, ())
            case (
                inputs.PowermeterMeasured()
                | inputs.IsolationMeasured()
                | inputs.SetpointRequested()
                | inputs.HeartbeatReceived()
                | inputs.ModeRequested()
                | inputs.BspEventReceived()
                | inputs.ImportSetpointRequested()
                | inputs.HmacKeyReceived()
                | inputs.SessionEventReceived()
                | inputs.OverVoltageMeasured()
            ):
                return by_number.get(message.connector, ())
            case inputs.PowerRequestReplyReceived():
                return by_global.get(message.connector_no, ())
            case inputs.BspErrorRaised() | inputs.BspErrorCleared():
                return (DISPENSER_ALARMS,) if message.connector in by_number else ()
            case inputs.ActiveErrorsReceived():
                return (DISPENSER_ALARMS,)
            case inputs.BrokerConnected() | inputs.BrokerDisconnected():
                return (*connectors, DISPENSER_ALARMS, TELEMETRY_PUBLISHER)
            case inputs.Started():
                return (*connectors, DISPENSER_ALARMS, PSU_LINK)
            case inputs.UtcOffsetChanged():
                return (*connectors, PSU_LINK)
            case inputs.ShutdownRequested() | inputs.JournalLost() | inputs.JournalRestored():
                return connectors
            case inputs.MqttMessageRejected():
                return ()  # recorded, and logged where it was rejected
            case _:
                return to_psu_link

    return route


__all__ = ["build", "restore", "snapshot"]
