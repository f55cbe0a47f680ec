"""EVerest, boards, monitors, meters in the demo: what they publish, and what EVerest hears from the driver."""

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ..messages.everest import topic
from ..messages.types import BspEvent, ChargingPhase, Mode

HEARTBEAT_S = 1.0
TELEMETRY_PREFIX = "fusioncharger"


def power_supply_id(connector: int) -> str:
    """Module id of the connector's power_supply_DC_API."""
    return f"power_supply_{connector}"


def board_id(connector: int) -> str:
    """Module id of the connector's evse_board_support_API."""
    return f"board_{connector}"


def monitor_id(connector: int) -> str:
    """Module id of the connector's isolation_monitor_API."""
    return f"monitor_{connector}"


def meter_id(connector: int) -> str:
    """Module id of the connector's powermeter_API."""
    return f"meter_{connector}"


def from_supply(connector: int, name: str) -> str:
    """The topic on which EVerest hears from the connector's driver."""
    return topic("", "power_supply_DC", power_supply_id(connector), "m2e", name)


@dataclass(frozen=True)
class Heard:
    """A message from the driver."""

    topic: str
    value: object
    """JSON, or else the text."""
    utc_s: float
    """When, in seconds since 1970."""


class Everest:
    """Everything is published with QoS 1. What is heard counts from `mark` on, as with PsuView."""

    def __init__(self, port: int, connectors: tuple[int, ...]) -> None:
        self._connectors = connectors
        self._heard: list[Heard] = []
        self._measured: dict[int, tuple[float, float]] = {}
        # Once: what a clock that is set meanwhile says could not be compared.
        self._utc_offset_s = time.time() - time.monotonic()
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "everest")
        self._client.on_socket_open = _without_delay
        self._client.on_connect = lambda client, *_: client.subscribe(
            [("everest_api/1/power_supply_DC/+/m2e/#", 1), (f"{TELEMETRY_PREFIX}/#", 1)]
        )
        self._client.on_message = self._receive
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._heartbeat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start_heartbeat(self) -> None:
        """Once a second from now on."""
        self._heartbeat.start()

    def close(self) -> None:
        """Ends the heartbeat and the connection."""
        self._ended.set()
        self._client.disconnect()
        self._client.loop_stop()

    # --- what EVerest and the devices say --------------------------------------------------------------------

    def request(self, connector: int, mode: Mode, phase: ChargingPhase) -> None:
        """e2m/mode."""
        self._to_supply(connector, "mode", {"mode": mode.value, "charging_phase": phase.value})

    def set_power(self, connector: int, voltage_v: float, current_a: float) -> None:
        """e2m/export_voltage_current."""
        self._to_supply(connector, "export_voltage_current", {"voltage_V": voltage_v, "current_A": current_a})

    def board_event(self, connector: int, event: BspEvent) -> None:
        """m2e/event of the board."""
        self._from_board(connector, "event", {"event": event.value})

    def raise_error(self, connector: int, error_type: str) -> None:
        """m2e/raise_error of the board."""
        self._from_board(connector, "raise_error", {"type": error_type})

    def clear_error(self, connector: int, error_type: str) -> None:
        """m2e/clear_error of the board."""
        self._from_board(connector, "clear_error", {"type": error_type})

    def measure(self, connector: int, voltage_v: float, current_a: float) -> None:
        """What isolation monitor and power meter measure: at once, and then with every heartbeat."""
        self._measured[connector] = (voltage_v, current_a)
        self._publish_measured(connector)

    # --- what EVerest hears ----------------------------------------------------------------------------------

    def mark(self) -> int:
        """Now."""
        with self._changed:
            return len(self._heard)

    def wait_for(
        self, topic_name: str, fits: Callable[[object], bool], mark: int, timeout_s: float
    ) -> Heard | None:
        """The first message after `mark` on the topic that fits; None if there was none in time."""

        def find() -> Heard | None:
            news = self._heard[mark:]
            return next((heard for heard in news if heard.topic == topic_name and fits(heard.value)), None)

        with self._changed:
            return self._changed.wait_for(find, timeout_s)

    def standing_errors(self, connector: int) -> set[tuple[str, str]]:
        """Type and sub_type of what is raised, and not cleared since."""
        standing: set[tuple[str, str]] = set()
        raised, cleared = from_supply(connector, "raise_error"), from_supply(connector, "clear_error")
        with self._changed:
            for heard in self._heard:
                if heard.topic in {raised, cleared} and isinstance(heard.value, dict):
                    error = (str(heard.value["type"]), str(heard.value["sub_type"]))
                    (standing.add if heard.topic == raised else standing.discard)(error)
        return standing

    # --- on the way to the broker and back -------------------------------------------------------------------

    def _beat(self) -> None:
        heartbeat_id = 0
        while not self._ended.wait(HEARTBEAT_S if heartbeat_id else 0.0):
            heartbeat_id += 1
            for connector in self._connectors:
                self._to_supply(connector, "heartbeat", heartbeat_id)
                if connector in self._measured:
                    self._publish_measured(connector)

    def _publish_measured(self, connector: int) -> None:
        voltage_v, current_a = self._measured[connector]
        self._publish(
            topic("", "isolation_monitor", monitor_id(connector), "m2e", "isolation_measurement"),
            {"resistance_F_Ohm": 1e6, "voltage_V": voltage_v},
        )
        self._publish(
            topic("", "powermeter", meter_id(connector), "m2e", "powermeter_values"),
            {
                "timestamp": datetime.now(UTC).isoformat(),
                "energy_Wh_import": {"total": 0},
                "voltage_V": {"DC": voltage_v},
                "current_A": {"DC": current_a},
            },
        )

    def _to_supply(self, connector: int, name: str, value: object) -> None:
        self._publish(topic("", "power_supply_DC", power_supply_id(connector), "e2m", name), value)

    def _from_board(self, connector: int, name: str, value: object) -> None:
        self._publish(topic("", "evse_board_support", board_id(connector), "m2e", name), value)

    def _publish(self, topic_name: str, value: object) -> None:
        self._client.publish(topic_name, json.dumps(value), qos=1)

    def _receive(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        heard = Heard(message.topic, _value(bytes(message.payload)), time.monotonic() + self._utc_offset_s)
        with self._changed:
            self._heard.append(heard)
            self._changed.notify_all()


def _value(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode(errors="replace")


def _without_delay(_client: paho.Client, _userdata: object, sock: object) -> None:
    assert isinstance(sock, socket.socket)  # noqa: S101 - paho's type also allows TLS and websockets
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
