"""What the composition root does itself; the rest is tested with real processes (system/)."""

import time
from pathlib import Path

import pytest
from core_harness import make_config
from fusioncharger.app import driver
from fusioncharger.app.process_log import ProcessLog
from fusioncharger.messages.config import JournalConfig
from msgspec.structs import replace


def test_a_core_that_was_silent_and_turns_before_anybody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the whole process stood still: the core's thread may be the first to run."""
    monkeypatch.setattr(driver, "CORE_TIMEOUT_S", 0.2)
    config = replace(make_config(1), ethernet_interface="udp:0", journal=JournalConfig(dir=str(tmp_path)))
    process_log = ProcessLog("error", as_json=False)
    driven = driver.Driver(config, process_log)
    try:
        for _ in range(3):
            driven._turned()
        assert driven._failure is None
        time.sleep(0.25)  # nothing happens that could be awaited: that is what is tested
        driven._turned()
        assert driven._failure is not None
        assert driven._failure.startswith("the core has not finished a turn for 0.")
    finally:
        driven._port.close()
        driven._link.close()
        process_log.close()
