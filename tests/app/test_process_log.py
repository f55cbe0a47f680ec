"""The process log's lines."""

import json
import logging

import pytest
from fusioncharger.app.process_log import ProcessLog

FORGED = "MREC8EmergencyStop/x\n2026-01-01T00:00:00.000Z INFO all is well \x1b[2J\x9b2J"


def test_what_others_say_makes_no_line_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    process_log = ProcessLog("info", as_json=False)
    logging.getLogger("fusioncharger.x").warning("%s was raised", FORGED, extra={"connector": 2})
    assert process_log.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert "WARNING connector 2: MREC8EmergencyStop/x\\x0a2026-01-01T" in line
    assert line.isprintable()


def test_an_exception_has_its_lines(capfd: pytest.CaptureFixture[str]) -> None:
    process_log = ProcessLog("info", as_json=False)
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("fusioncharger.x").exception("it failed")
    assert process_log.close()
    first, *_, last = capfd.readouterr().err.splitlines()
    assert first.endswith("ERROR it failed")
    assert last == "ValueError: no"


def test_json_is_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    process_log = ProcessLog("info", as_json=True)
    logging.getLogger("fusioncharger.x").warning("%s", FORGED)
    assert process_log.close()
    (line,) = capfd.readouterr().err.rstrip("\n").split("\n")
    assert json.loads(line)["text"] == FORGED
