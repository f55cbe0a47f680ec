"""The Outputs that a connector's state calls for: GOOSE messages and errors towards EVerest.

Pure functions, used by the connector at the end of a turn and by the safe stop, which calls no handler.
"""

from collections.abc import Iterable

from ..messages.outputs import ErrorCleared, ErrorRaised, PowerRequested, StopRequested
from ..messages.types import PowerRequestMode, PsuRunningMode, StopReason
from .capabilities import are_received
from .connector_errors import (
    ALLOCATION_FAILED,
    CAPABILITIES_NOT_RECEIVED,
    CATALOGUE,
    COMMUNICATION_FAULT,
    INTERNAL_ERROR,
    JOURNAL_UNAVAILABLE,
    PSU_NOT_RUNNING,
    Fault,
    alarm_fault,
)
from .connector_state import ConnectorState, Content

# A member taken from its class costs 0.1 us in Python 3.11, and these are looked at in most turns.
_RUNNING = int(PsuRunningMode.RUNNING)
_CONSTANT_CURRENT = PowerRequestMode.CONSTANT_CURRENT

ST_NUM_MAX = 0xFFFFFFFF


def next_st_num(state: ConnectorState) -> int:
    """The number of the next new message; after the largest u32 comes 1 (protocol.md §3.3)."""
    return state.st_num % ST_NUM_MAX + 1


def goose_output(
    state: ConnectorState, wanted: Content, number: int, global_number: int, at_ns: int
) -> PowerRequested | StopRequested:
    """The GOOSE message with this content, numbered and dated as `state` says."""
    if wanted.requirement_type is None:
        return StopRequested(
            connector=number,
            connector_no=global_number,
            dst=state.psu_mac,
            st_num=state.st_num,
            t_ns=at_ns + state.utc_offset_ns,
            reason=StopReason.NORMAL,
        )
    return PowerRequested(
        connector=number,
        connector_no=global_number,
        dst=state.psu_mac,
        st_num=state.st_num,
        t_ns=at_ns + state.utc_offset_ns,
        requirement_type=wanted.requirement_type,
        mode=_CONSTANT_CURRENT,
        voltage_v=wanted.voltage_v,
        current_a=wanted.current_a,
    )


def faults(state: ConnectorState) -> tuple[Fault, ...]:
    """The errors that have to be raised now, in the catalogue's order (behaviour.md §3)."""
    found = []
    if not state.link_ready or (state.resuming and not state.resume_overdue):
        found.append(Fault(*COMMUNICATION_FAULT, "Communication error"))
    if state.psu_running_mode != _RUNNING:
        found.append(Fault(*PSU_NOT_RUNNING, "The power unit is not running"))
    if not are_received(state.capabilities):
        found.append(Fault(*CAPABILITIES_NOT_RECEIVED, "The power unit's ratings are not received"))
    if state.internal_error:
        found.append(Fault(*INTERNAL_ERROR, state.internal_error))
    if state.allocation_failed:
        found.append(Fault(*ALLOCATION_FAILED, "Module placeholder allocation failed"))
    if state.journal_lost:
        found.append(Fault(*JOURNAL_UNAVAILABLE, state.journal_lost))
    for key, value in state.psu_alarms.items():
        found.append(alarm_fault(key, value))
    return tuple(found)


def error_changes(
    number: int, raised: Iterable[Fault], now: Iterable[Fault]
) -> list[ErrorRaised | ErrorCleared]:
    """From what was raised to what is to be: a message that changed is cleared and raised again."""
    former, wanted = tuple(raised), tuple(now)
    return [
        *(_error(ErrorCleared, number, fault) for fault in former if fault not in wanted),
        *(_error(ErrorRaised, number, fault) for fault in wanted if fault not in former),
    ]


def error_synchronisation(number: int, now: Iterable[Fault]) -> list[ErrorRaised | ErrorCleared]:
    """The state of every error that there is (behaviour.md §8.2)."""
    raised = {(fault.error_type, fault.sub_type): fault for fault in now}
    made: list[ErrorRaised | ErrorCleared] = []
    for kind in CATALOGUE:
        fault = raised.get(kind)
        # EVerest ignores a raise of what is raised already: a warning's message may be an older one.
        if fault is None or fault.error_type == "VendorWarning":
            made.append(_error(ErrorCleared, number, fault or Fault(*kind, "")))
        if fault is not None:
            made.append(_error(ErrorRaised, number, fault))
    return made


def _error(
    output: type[ErrorRaised] | type[ErrorCleared], number: int, fault: Fault
) -> ErrorRaised | ErrorCleared:
    return output(connector=number, error_type=fault.error_type, sub_type=fault.sub_type, message=fault.message)
