"""Data only: every message, register and setting of the system. No behaviour, no clock, no socket."""
