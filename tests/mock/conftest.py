"""Fixtures for tests with the mock as a process."""

from collections.abc import Callable, Iterator

import pytest
from mock_bench import Ether, Mock


@pytest.fixture
def start() -> Iterator[Callable[..., Mock]]:
    mocks: list[Mock] = []

    def start(*options: str, **environment: str) -> Mock:
        variables = {f"FUSION_CHARGER_MOCK_{name}": value for name, value in environment.items()}
        mocks.append(Mock(variables, *options))
        return mocks[-1]

    yield start
    for mock in mocks:
        if mock.process.poll() is None:
            mock.stop()


@pytest.fixture
def mock(start: Callable[..., Mock]) -> Mock:
    return start()


@pytest.fixture
def ether(mock: Mock) -> Iterator[Ether]:
    ether = Ether(mock)
    yield ether
    ether.port.close()
