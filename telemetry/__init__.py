"""Telemetry: datapoints, topics, units and the diff. Pure functions over values (behaviour.md §7)."""
