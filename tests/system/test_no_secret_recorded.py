"""No secret that the system ever held is in anything that comes out of it: TLS and signed GOOSE to the power
unit; TLS, a client certificate and a password to the broker."""

import base64
import fcntl
import re
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard
from broker import free_port, wait_until_accepting
from fakes.guarded_broker import PASSWORD, Site
from fusioncharger.messages.inputs import HmacKeyReceived
from fusioncharger.mock.dispenser_session import KEY
from fusioncharger.replay.housekeeping import compress
from fusioncharger.replay.reader import read_log
from mcap.reader import make_reader
from rig import Everest, Rig, rig


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


def _private_keys(paths: Iterable[Path]) -> Iterator[bytes]:
    """The body of every private key, and each of its lines."""
    for path in paths:
        text = path.read_text()
        (body,) = re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)\n-----END", text, re.DOTALL)
        yield base64.b64decode(body)
        yield from (line.encode() for line in body.splitlines() if len(line) >= 16)


def _run(*arguments: str | Path) -> bytes:
    """What a command of fusioncharger says, on both streams."""
    command = [sys.executable, "-m", "fusioncharger", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=120)
    return done.stdout


def _of_the_journal(journal: Path, output: Path) -> Iterator[tuple[str, bytes]]:
    """The files as they are and what is inside of them, and everything that is made of them."""
    segments = sorted(journal.rglob("*.mcap"))
    for path in segments:
        yield path.name, path.read_bytes()
        with path.open("rb") as file:
            messages = [message.data for _, _, message in make_reader(file).iter_messages()]
        assert messages
        yield f"messages of {path.name}", b"\n".join(messages)
    output.mkdir()
    yield "log cat", _run("log", "cat", journal)
    yield "log info", _run("log", "info", "--json", journal)
    yield "log verify", _run("log", "verify", journal)
    yield "replay --at", _run("replay", "--at", "+1000000", segments[-1])
    yield "log export", _run("log", "export", "--csv", output / "tables", journal)
    yield "view", _run("view", journal, "-o", output / "view.html")
    yield "log pcap", _run("log", "pcap", journal, "-o", output / "wire.pcapng")
    made = [path for path in sorted(output.rglob("*")) if path.is_file()]
    assert len(made) >= 4, made
    for path in made:
        yield path.name, path.read_bytes()


def _wait_compressed(segment: Path) -> None:
    """A closed segment is compressed in the background, by itself; here, if that has not begun."""
    for _ in range(3):
        compress(segment)
        with segment.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # whoever does it has this lock
            if zstandard.FRAME_HEADER in segment.read_bytes():
                return
    raise AssertionError(segment)


def _of_the_bundle(output: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(output) as bundle:
        for name in bundle.namelist():
            yield f"bundle: {name}", bundle.read(name)


def _of_what_goes_wrong(config: Path, site: Site, certificates: Path) -> Iterator[tuple[str, bytes]]:
    """What `check` and `run` say with secrets that are wrong, or in the wrong place."""
    yield "check", _run("check", "--config", config)
    password = Path(site.password)
    text = config.read_text()
    for what, wrong in (
        ("another password", text.replace(str(password), str(site.directory / "wrong"))),
        ("a key in the password's place", text.replace(str(password), f"{site.directory}/driver.key")),
        ("the password in the key's place", text.replace(f"{site.directory}/driver.key", str(password))),
        ("another one's key", text.replace(f"{certificates}/dispenser.key.pem", f"{certificates}/psu.key.pem")),
        ("a password in the file", text + f'[mqtt2]\npassword = "x"\n# {PASSWORD}\n'),
    ):
        assert wrong != text, what
        file = config.with_name("wrong.toml")
        file.write_text(wrong)
        yield f"check with {what}", _run("check", "--config", file)
        if what not in ("another password", "a key in the password's place"):  # with these the driver runs
            said = _run("run", "--config", file)
            assert said, what
            yield f"run with {what}", said


def _certify(certificates: Path) -> str:
    """Certificates for the link to the PSU; the settings for them."""
    _run("certs", certificates)
    return f"""
tls_enabled = true
psu_ca_cert = "{certificates}/psu_ca.crt.pem"
client_cert = "{certificates}/dispenser.crt.pem"
client_key = "{certificates}/dispenser.key.pem"
"""


def _log_in(system: Rig, site: Site, port: int) -> None:
    """Driver and EVerest use the guarded broker: the driver over TLS, EVerest on `port` without."""
    access = site.access | {"port": site.mosquitto.port}
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for key, value in access.items()
    ]
    text = re.sub(r"\[mqtt\]\nport = \d+", "\n".join(["[mqtt]", *lines]), system.config.read_text())
    system.config.write_text(text + f"# password: {PASSWORD}\n")
    system.everest.close()
    system.everest = Everest(port, ("other", "x"))


def test_no_secret_is_in_anything_that_comes_out(tmp_path: Path) -> None:
    certificates, port = tmp_path / "certificates", free_port()
    (tmp_path / "broker").mkdir()
    site = Site(tmp_path / "broker", "user driver\ntopic #\nuser other\ntopic #\n")
    settings = _certify(certificates)
    (site.directory / "wrong").write_text("wrong\n")
    keys = [KEY, *(secrets.token_bytes(48) for _ in range(2))]
    found: list[tuple[str, bytes]] = []
    with rig(tmp_path, settings=settings, mock_options=(str(certificates), "--ratings-at-once")) as system:
        site.listen_plainly_too(port)
        with site.mosquitto as broker:
            assert broker._process is not None
            wait_until_accepting(port, broker._process)
            _log_in(system, site, port)
            system.launch_driver("--log-level", "debug")
            system.mock.events.wait(lambda event: event["event"] == "round_done")
            system.everest.wait("telemetry/status", "online")
            system.everest.start_heartbeats(1)
            for key in keys[1:]:
                mark = system.mock.events.mark()
                system.psu("key", connector=1, key=key.hex())
                system.mock.events.wait(lambda event: event["event"] == "key_acknowledged", after=mark)
            system.charge(1)
            system.psu("alarm", name="PowerUnit/Water")
            system.everest.wait_error(1, "VendorWarning", "PowerUnit/Water")
            output, log = tmp_path / "case.zip", tmp_path / "driver.log"
            log.write_text("\n".join([*system.driver.log.all(), f"debug: login with {PASSWORD}"]))
            said = _run("bundle", "--config", system.config, "--process-log", log, "-o", output)
            found += [("bundle", said), *_of_the_bundle(output)]
            found += _of_what_goes_wrong(system.config, site, certificates)
            (segment,) = system.logs()
            found.append(("segment as it is written", segment.read_bytes()))
            assert system.driver.terminate() == 0
            lines, messages = system.driver.log.all(), system.everest.messages.all()
    assert any("login accepted" in str(text) for name, text in found if name == "check")
    assert any("MQTT: connected" in line for line in lines)
    found.append(("process log", "\n".join(lines).encode()))
    assert {topic.split("/")[0] for topic, _ in messages} == {"everest_api", "telemetry"}
    found.append(("MQTT", "\n".join(f"{topic} {payload}" for topic, payload in messages).encode()))
    journal = tmp_path / "sessions"
    with read_log(segment) as recorded:
        received = [turn for turn in recorded.turns() if isinstance(turn.input, HmacKeyReceived)]
    assert len(received) > len(keys)
    _wait_compressed(segment)
    found += _of_the_journal(journal, tmp_path / "made")

    files = [*sorted(certificates.glob("*.key.pem")), *sorted(site.directory.glob("*.key"))]
    forms = [form for key in keys for form in _forms(key)]
    forms += [form for secret in (PASSWORD.encode(), *_private_keys(files)) for form in _forms(secret)]
    forms += [b"PRIVATE KEY-----"]
    for name, content in found:
        for form in forms:
            assert form not in content, (name, form)
    # What was searched for is found where it does stand.
    assert any(form in (certificates / "dispenser.key.pem").read_bytes() for form in forms)
    assert any(form in (site.directory / "driver.key").read_bytes() for form in forms)
    assert any(form in log.read_bytes() for form in _forms(PASSWORD.encode()))
