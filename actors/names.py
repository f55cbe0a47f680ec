"""The actors' names. They stand in the journal (timers, snapshots): never rename one."""

PSU_LINK = "psu_link"
DISPENSER_ALARMS = "dispenser_alarms"
TELEMETRY_PUBLISHER = "telemetry_publisher"


def connector_name(number: int) -> str:
    """The name of the connector with that local number."""
    return f"connector/{number}"
