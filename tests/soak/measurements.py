"""Isolation monitors, over-voltage monitors and power meters that measure without a pause:
`measurements.py BROKER_PORT CONNECTORS PER_SECOND`, until it is killed. Reconnects for ever.
"""

import json
import sys
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


def main() -> None:
    port, connectors, per_second = (int(argument) for argument in sys.argv[1:])
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.reconnect_delay_set(1, 1)
    client.max_queued_messages_set(1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    begin_s = time.monotonic()
    n = 0
    while True:
        voltage_v = 300 + n % 1000 / 10
        meter = {
            "timestamp": "2026-01-01T00:00:00.000Z",
            "energy_Wh_import": {"total": n},
            "voltage_V": {"DC": voltage_v},
            "current_A": {"DC": 20 + n % 10},
        }
        isolation = {"resistance_F_Ohm": 1e6, "voltage_V": voltage_v}
        for connector in range(1, connectors + 1):
            for topic, payload in (
                (f"powermeter/meter_{connector}/m2e/powermeter_values", json.dumps(meter)),
                (f"isolation_monitor/imd_{connector}/m2e/isolation_measurement", json.dumps(isolation)),
                (f"over_voltage_monitor/ovm_{connector}/m2e/voltage_measurement_V", str(voltage_v)),
            ):
                if client.is_connected():
                    client.publish(f"everest_api/1/{topic}", payload)
        n += 1
        time.sleep(max(0.0, begin_s + n / per_second - time.monotonic()))


if __name__ == "__main__":
    main()
