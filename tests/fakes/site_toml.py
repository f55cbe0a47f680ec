"""A configuration's connector, as a site has it."""

CONNECTOR = """
[[connectors]]
global_connector_number = 1
max_export_current_A = 100
max_export_power_W = 60000
power_supply_DC = "psu_1"
evse_board_support = "bsp_1"
isolation_monitor = "imd_1"
"""
