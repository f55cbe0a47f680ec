"""How long does it take from each plug-in to the first request for power, and what was asked for then?

    python docs/session_example.py tests/sessions/format-1-demo.mcap

prints, for the recording of a demo:

    connector 1: 0.028 s, INSULATION_DETECTION_VOLTAGE_OUTPUT 500 V, ExportCableCheck, turn 54
    connector 2: 0.046 s, INSULATION_DETECTION_VOLTAGE_OUTPUT 500 V, ExportCableCheck, turn 63
"""

import sys

from fusioncharger.messages.inputs import BspEventReceived
from fusioncharger.messages.outputs import PowerRequested
from fusioncharger.messages.types import BspEvent, RequirementType
from fusioncharger.replay import Session


def main(paths: list[str]) -> None:
    """A line for each plug-in that led to a request."""
    plugged_in_ns: dict[int, int] = {}
    with Session.open(*paths) as session:
        for step in session:
            turn = step.turn
            match turn.input:
                case BspEventReceived(connector=connector, event=BspEvent.B):
                    plugged_in_ns[connector] = turn.at_ns
            for output in step.outputs:
                match output:
                    case PowerRequested(connector=connector, requirement_type=kind, voltage_v=voltage_v) if (
                        connector in plugged_in_ns and kind is not RequirementType.MODULE_PLACEHOLDER_REQUEST
                    ):
                        waited_s = (turn.at_ns - plugged_in_ns.pop(connector)) / 1e9
                        phase = step.after[f"connector/{connector}"].mode_phase.value  # type: ignore[attr-defined]
                        print(
                            f"connector {connector}: {waited_s:.3f} s, {kind.name} {voltage_v:g} V, {phase}, "
                            f"turn {turn.number}"
                        )


if __name__ == "__main__":
    main(sys.argv[1:])
