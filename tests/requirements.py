"""What some tests need of the machine. Without it they are skipped, with the reason; CI has it all and fails on
skips."""

import shutil
from typing import NoReturn

import pytest


def require_program(name: str) -> str:
    """The path of an installed program; skips the test if it is not installed."""
    path = shutil.which(name)
    return path or unavailable(f"{name} is not installed")


def unavailable(reason: str) -> NoReturn:
    """Skip the test: the machine lacks something."""
    pytest.skip(reason)
