"""The EVerest API documents are not part of this repository; what needs them is collected where they are."""

import contextlib
import logging
from pathlib import Path

import pytest
from fakes.mqtt_driver import Driver, Log

EVEREST_API = Path(__file__).resolve().parents[3] / "shared" / "everest_api"

collect_ignore = [] if EVEREST_API.is_dir() else ["test_everest_schemas.py"]


@pytest.fixture
def log():
    handler = Log()
    logger = logging.getLogger("fusioncharger.io.mqtt_client")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def start():
    """Starts drivers and closes them at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start_driver(*args, **kwargs):
            driver = Driver(*args, **kwargs)
            stack.callback(driver.client.close, 2.0)
            return driver

        yield start_driver
