"""Payloads of EVerest's API as Inputs (behaviour.md §8.1, §8.3). Sans-IO; the topics are everest_codec.py's.

Rules:
- What does not fit raises msgspec.DecodeError, and nothing else is ever raised.
- Its time is linear in the payload: `misshapen` checks size and nesting before the JSON decoder sees a byte.
- A number is finite: JSON has no NaN and no infinity, and the decoder refuses what is too large for a float.
- Only what the driver needs has to be there. A device that leaves out a key that its schema requires and
  nobody here reads (a meter's timestamp) is still worth listening to.
"""

import re
from collections.abc import Mapping

import msgspec

from ..messages import everest
from ..messages.inputs import (
    ActiveErrorsReceived,
    BspError,
    BspErrorCleared,
    BspErrorRaised,
    BspEventReceived,
    HeartbeatReceived,
    ImportSetpointRequested,
    Input,
    IsolationMeasured,
    ModeRequested,
    OverVoltageMeasured,
    PowermeterMeasured,
    SessionEventReceived,
    SetpointRequested,
)

MAX_PAYLOAD_BYTES = 64 * 1024
MAX_NESTING = 32
MAX_HEARTBEAT_ID = 2**64 - 1

BOARD_ERRORS = "evse_board_support/"
"""What error_history puts before the type of a board's error."""

# A string as a whole (an unterminated one: to the end), so that brackets in it do not count. Every part of
# the pattern may stop anywhere, hence no backtracking.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]+|\\.)*"?|[\[\]{}]', re.DOTALL)

_mode_request = msgspec.json.Decoder(everest.ModeRequest)
_voltage_current = msgspec.json.Decoder(everest.VoltageCurrent)
_heartbeat = msgspec.json.Decoder(int)
_bsp_event = msgspec.json.Decoder(everest.BspEventMessage)
_error = msgspec.json.Decoder(everest.Error)
_isolation = msgspec.json.Decoder(everest.IsolationMeasurement)
_number = msgspec.json.Decoder(float)
_powermeter = msgspec.json.Decoder(everest.PowermeterValues)
_voltages = msgspec.json.Decoder(everest.PowermeterVoltages)
_session_event = msgspec.json.Decoder(everest.SessionEvent)
_history_error = msgspec.json.Decoder(everest.HistoryError)
_error_list = msgspec.json.Decoder(everest.ErrorList)


def misshapen(payload: bytes) -> str:
    """What is wrong with size, nesting or UTF-8 ("" if nothing): what the JSON decoder does not check, or not
    before it recurses."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        return f"larger than {MAX_PAYLOAD_BYTES} bytes"
    # Counting is far cheaper than scanning, and every honest message ends here.
    if payload.count(b"{") + payload.count(b"[") > MAX_NESTING and _nesting(payload) > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    try:
        payload.decode("utf-8")  # the decoder skips the strings of unknown keys unchecked
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    return ""


def _nesting(payload: bytes) -> int:
    """How deep the JSON text opens objects and arrays, whether it is valid or not."""
    depth = deepest = 0
    for token in _STRING_OR_BRACKET.finditer(payload):
        byte = payload[token.start()]
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest


NO_DC_VOLTAGE = (
    "voltage_V.DC is missing: connect a DC meter at the car's side (EvseManager's powermeter_car_side)"
)


def from_everest(connector: int, name: str, payload: bytes, *, redelivered: bool) -> Input:
    """What EVerest says to the connector's power supply: e2m/`name` of power_supply_DC."""
    match name:
        case "mode":
            request = _mode_request.decode(payload)
            return ModeRequested(connector=connector, mode=request.mode, charging_phase=request.charging_phase)
        case "export_voltage_current":
            wanted = _voltage_current.decode(payload)
            return SetpointRequested(
                connector=connector, voltage_v=wanted.voltage_V, current_a=wanted.current_A
            )
        case "import_voltage_current":
            wanted = _voltage_current.decode(payload)
            return ImportSetpointRequested(
                connector=connector, voltage_v=wanted.voltage_V, current_a=wanted.current_A
            )
        case "heartbeat":
            heartbeat_id = _heartbeat.decode(payload)
            if not 0 <= heartbeat_id <= MAX_HEARTBEAT_ID:
                reason = "Expected an unsigned 64 bit integer"
                raise msgspec.ValidationError(reason)
            return HeartbeatReceived(connector=connector, heartbeat_id=heartbeat_id, redelivered=redelivered)
        case _:
            raise AssertionError(name)


def from_device(connector: int, name: str, payload: bytes) -> Input:
    """What a device of the connector says: m2e/`name` of its own API, or e2m/`name` of evse_manager."""
    match name:
        case "event":
            return BspEventReceived(connector=connector, event=_bsp_event.decode(payload).event)
        case "raise_error":
            error = _error.decode(payload)
            return BspErrorRaised(connector=connector, error_type=error.type, sub_type=error.sub_type)
        case "clear_error":
            error = _error.decode(payload)
            return BspErrorCleared(connector=connector, error_type=error.type, sub_type=error.sub_type)
        case "isolation_measurement":
            return IsolationMeasured(connector=connector, voltage_v=_isolation.decode(payload).voltage_V)
        case "voltage_measurement_V":
            return OverVoltageMeasured(connector=connector, voltage_v=_number.decode(payload))
        case "powermeter_values" | "powermeter":
            values = _powermeter.decode(payload)
            if name == "powermeter" and _voltages.decode(payload).voltage_V.DC is None:
                # EvseManager tells of the grid's meter where none is at the car's side. Its missing DC voltage
                # is no 0 V: there may be 500 V at the outlet.
                raise msgspec.ValidationError(NO_DC_VOLTAGE)
            return PowermeterMeasured(
                connector=connector, voltage_v=values.voltage_V.DC, current_a=values.current_A.DC
            )
        case "session_event":
            session = _session_event.decode(payload)
            return SessionEventReceived(
                connector=connector, event=session.event, reason=session.session_started.reason
            )
        case _:
            raise AssertionError(name)


def from_error_history(name: str, payload: bytes, boards: Mapping[str, int]) -> Input | None:
    """What error_history says of the boards: e2m/`name`. `boards` is the connector of each board support's
    module id. None: an error of someone else."""
    if name == "active_errors":
        errors = (_board_error(error, boards) for error in _error_list.decode(payload).errors)
        return ActiveErrorsReceived(errors=tuple(dict.fromkeys(error for error in errors if error)))
    found = _board_error(_history_error.decode(payload), boards)
    if found is None:
        return None
    kind = BspErrorRaised if name == "error_raised" else BspErrorCleared
    return kind(connector=found.connector, error_type=found.error_type, sub_type=found.sub_type)


def _board_error(error: everest.HistoryError, boards: Mapping[str, int]) -> BspError | None:
    connector = boards.get(error.origin.module_id)
    if connector is None or not error.type.startswith(BOARD_ERRORS):
        return None
    return BspError(connector, error.type.removeprefix(BOARD_ERRORS), error.sub_type)
