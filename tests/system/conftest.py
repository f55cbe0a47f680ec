"""Every message to EVerest that a test of this folder brings about has to fit its schema. EVerest's API
documents are not part of this repository: where they are missing, that is not checked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Everest

EVEREST_API = Path(__file__).resolve().parents[3] / "shared" / "everest_api"

collect_ignore = [] if EVEREST_API.is_dir() else ["test_schemas_live.py"]

if EVEREST_API.is_dir():
    from m2e_schemas import misfits

    @pytest.fixture(autouse=True)
    def every_message_to_everest_fits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        heard: list[tuple[str, str]] = []
        close = Everest.close

        def look_and_close(everest: Everest) -> None:
            heard.extend(everest.messages.all())
            close(everest)

        monkeypatch.setattr(Everest, "close", look_and_close)
        yield
        assert misfits(heard) == []
