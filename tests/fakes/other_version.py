"""A version of the driver whose outputs have a field that the recorded one's had not."""

import pytest
from fusioncharger.messages.outputs import ModePublished
from fusioncharger.replay import comparison, divergence


def publish_modes_with_a_field_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade: ModePublished has a colour."""
    encode = divergence._encoder.encode

    class WithField:
        def encode(self, message: object) -> bytes:
            text = encode(message)
            return text[:-1] + b',"colour":"red"}' if isinstance(message, ModePublished) else text

    for module in (divergence, comparison):
        monkeypatch.setattr(module, "_encoder", WithField())
