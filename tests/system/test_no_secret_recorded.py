"""No secret that the system ever held is in the journal, in a bundle or in the process log: TLS, signed GOOSE,
a broker that wants a password."""

import base64
import re
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from broker import Mosquitto
from fusioncharger.messages.inputs import HmacKeyReceived
from fusioncharger.mock.dispenser_session import KEY
from fusioncharger.replay.reader import read_log
from fusioncharger.replay.records import RecordReader
from requirements import require_program
from rig import rig

PASSWORD = "correct-horse-battery-staple"


def _forms(secret: bytes) -> Iterator[bytes]:
    """How it might have been written: raw, hex, base64 at any offset, JSON list of bytes or of words."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for skip in range(3):
        inner = secret[skip:]
        yield base64.b64encode(inner[: len(inner) // 3 * 3])
        yield base64.urlsafe_b64encode(inner[: len(inner) // 3 * 3])
    words = [int.from_bytes(secret[at : at + 2], "big") for at in range(0, len(secret) - 1, 2)]
    for numbers in (list(secret), words):
        text = ",".join(map(str, numbers))
        yield text.encode()
        yield text.replace(",", ", ").encode()


def _private_keys(certificates: Path) -> Iterator[bytes]:
    """The body of every private key, and each of its lines."""
    for path in sorted(certificates.glob("*.key.pem")):
        text = path.read_text()
        (body,) = re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)\n-----END", text, re.DOTALL)
        yield base64.b64decode(body)
        yield from (line.encode() for line in body.splitlines() if len(line) >= 16)


def _contents(journal: Path, output: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that leaves the machine: files as they are, and what is inside of compressed ones."""
    for path in sorted(journal.rglob("*.mcap")):
        yield path.name, path.read_bytes()
        with path.open("rb") as file:
            reader = RecordReader(file)
            reader.read_profile()
            yield f"messages of {path.name}", b"\n".join(message[4] for message in reader.messages())
    with zipfile.ZipFile(output) as bundle:
        for name in bundle.namelist():
            yield f"bundle: {name}", bundle.read(name)


def test_no_secret_is_in_journal_bundle_or_log(tmp_path: Path) -> None:
    certificates = tmp_path / "certificates"
    command = [sys.executable, "-m", "fusioncharger"]
    subprocess.run([*command, "certs", str(certificates)], capture_output=True, check=True)
    passwords, password_file = tmp_path / "mosquitto.passwords", tmp_path / "password"
    mosquitto_passwd = require_program("mosquitto_passwd")
    subprocess.run(
        [mosquitto_passwd, "-c", "-b", str(passwords), "driver", PASSWORD], capture_output=True, check=True
    )
    password_file.write_text(PASSWORD + "\n")
    settings = f"""
tls_enabled = true
psu_ca_cert = "{certificates}/psu_ca.crt.pem"
client_cert = "{certificates}/dispenser.crt.pem"
client_key = "{certificates}/dispenser.key.pem"
"""
    keys = [KEY, *(secrets.token_bytes(48) for _ in range(2))]
    with (
        rig(tmp_path, settings=settings, mock_options=(str(certificates), "--ratings-at-once")) as system,
        Mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}") as guarded,
    ):
        text = system.config.read_text()
        told = f'[mqtt]\nusername = "driver"\npassword_file = "{password_file}"\nport = {guarded.port}'
        system.config.write_text(re.sub(r"\[mqtt\]\nport = \d+", told, text) + f"# password: {PASSWORD}\n")
        system.launch_driver()
        system.mock.events.wait(lambda event: event["event"] == "round_done")
        system.driver.log.wait(lambda line: "MQTT" in line and "connected" in line.lower())
        for key in keys[1:]:
            mark = system.mock.events.mark()
            system.psu("key", connector=1, key=key.hex())
            system.mock.events.wait(lambda event: event["event"] == "key_acknowledged", after=mark)
        output = tmp_path / "case.zip"
        log = tmp_path / "driver.log"
        log.write_text("\n".join([*system.driver.log.all(), f"debug: login with {PASSWORD}"]))
        subprocess.run(
            [
                *[*command, "bundle", "--config", str(system.config), "--process-log", str(log)],
                *["-o", str(output)],
            ],
            capture_output=True,
            check=True,
        )
        assert system.driver.terminate() == 0
    journal = tmp_path / "sessions"
    (segment,) = journal.glob("*.mcap")
    with read_log(segment) as recorded:
        received = [turn for turn in recorded.turns() if isinstance(turn.input, HmacKeyReceived)]
    assert len(received) >= len(keys)
    forms = [form for key in keys for form in _forms(key)]
    forms += [form for secret in (PASSWORD.encode(), *_private_keys(certificates)) for form in _forms(secret)]
    forms += [b"PRIVATE KEY-----"]
    for name, content in _contents(journal, output):
        for form in forms:
            assert form not in content, (name, form)
    # What was searched for is found where it does stand.
    assert any(form in (certificates / "dispenser.key.pem").read_bytes() for form in forms)
    assert any(form in log.read_bytes() for form in _forms(PASSWORD.encode()))
