"""What a mock is told: a scenario (TOML) or a line of its control; and all that is told is carried out.

input   0, TOML text       1, line of JSON
"""

import tempfile
from pathlib import Path

from fusioncharger.mock.commands import CommandError
from fusioncharger.mock.control import LineReader, parse_line
from fusioncharger.mock.scenario import Scenario, ScenarioError, Step, read_scenario
from fuzz.psu_bench import AnsweringBench
from fuzz.source import Source

_folder = tempfile.TemporaryDirectory(
    prefix="fuzz-scenario-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
)
_file = Path(_folder.name) / "scenario.toml"


def check(data: bytes) -> None:
    source = Source(data)
    try:
        if source.below(2) == 0:
            _file.write_bytes(source.rest())
            scenario = read_scenario(str(_file))
        else:
            lines = LineReader().feed(source.rest() + b"\n")
            steps = tuple(Step(number, 0.0, parse_line(line)) for number, line in enumerate(lines, 1))
            scenario = Scenario("start", steps)
    except (ScenarioError, CommandError):
        return
    if len(scenario.steps) <= 50:
        AnsweringBench(scenario).run()
