"""What looks like a secret is taken out of a text; what does not, stays."""

import base64

import pytest
from fusioncharger.app.bundle_secrets import LEFT_OUT, redacted
from hypothesis import given
from hypothesis import strategies as st

PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nabcdef\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('password = "hunter2"', "hunter2"),
        ("# the broker's password: hunter2 ", "hunter2"),
        ("mqtt_password=hunter2", "hunter2"),
        ('{"api_token": "abc"}', "abc"),
        ("hmac_key = 0011", "0011"),
        ("mqtt://user:hunter2@broker:1883", "hunter2"),
        (f"x {PEM} y", "MIGHAgEAMBMGByqGSM49"),
        (PEM[:60], "MIGHAgEAMBMGByqGSM49"),
        (f"key {bytes(range(48)).hex()}", bytes(range(48)).hex()),
        (f"key {base64.b64encode(bytes(range(48))).decode()}", base64.b64encode(bytes(range(48))).decode()),
    ],
)
def test_what_looks_like_a_secret_goes(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redacted(text, ())
    assert LEFT_OUT in redacted(text, ())


@pytest.mark.parametrize(
    "text",
    [
        'password_file = "/etc/fusioncharger/mqtt.password"',
        'client_key = "/etc/fusioncharger/certs/dispenser.key.pem"',
        'esn = "2102312ABC0000000"',
        "2026-11-24T10:00:00Z INFO connector 1: NoKeyYet -> ConnectedNoAllocation (hmac key received)",
        "boot e84aa17b-d942-4b05-a2bf-7613b815dd3b",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redacted(text, ()) == text


@given(
    before=st.text(),
    after=st.text(),
    secret=st.text(st.characters(codec="ascii"), min_size=4).filter(lambda text: text not in LEFT_OUT),
)
def test_a_known_secret_goes_wherever_it_stands(before: str, after: str, secret: str) -> None:
    assert secret not in redacted(before + secret + after, (secret,)).replace(LEFT_OUT, "\0")
