"""The demo as a newcomer runs it, and what it says when it cannot be played."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import pytest
from fusioncharger.app import demo, demo_stage
from fusioncharger.app.demo_narrator import ExpectationError, Narrator
from fusioncharger.app.demo_network import GooseNetwork, find_obstacle, udp_network
from fusioncharger.app.demo_processes import Processes, PsuView, free_port
from fusioncharger.app.demo_session import play
from fusioncharger.app.demo_tls import make_certificates, settings
from fusioncharger.io.tls import TlsFiles, client_context
from rich.console import Console

DEMO = [sys.executable, "-m", "fusioncharger", "demo", "--output"]


def arguments(*words):
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("options", [(), ("--tls",)], ids=["plain", "TLS"])
def test_a_session_over_udp_holds_and_replays(tmp_path, options):
    # Without unshare in its PATH the demo takes the way of a machine that allows no namespace.
    result = subprocess.run(
        [*DEMO, str(tmp_path / "out"), *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": str(tmp_path)},
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    *story, log, verdict = result.stdout.splitlines()
    assert "over UDP" in story[1]
    assert "unshare is not installed" in story[1]
    assert "✗" not in result.stdout
    assert ("TLS 1.3" in result.stdout) == bool(options)
    (recording,) = (tmp_path / "out").glob("*.mcap")
    assert log == f"log: {recording}"
    assert verdict.startswith("identical: ")


def test_sigterm_ends_everything_that_was_started(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*DEMO, str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    deadline = time.monotonic() + 20
    while not (out / "driver.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # a new file tells no one
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"interrupted" in said
    assert '"event":"stopped"' in (out / "power-unit-events.jsonl").read_text()


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda _name: None)
    assert demo.demo_command(arguments("--output", str(tmp_path))) == 2
    assert "make demo" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert demo.demo_command(arguments("--output", str(tmp_path / "file" / "x"))) == 2
    assert str(tmp_path / "file" / "x") in capsys.readouterr().err


def test_a_failed_check_is_shown_and_ends_the_story(capsys):
    narrator = Narrator(Console())
    narrator.check("holds", lambda: True)
    with pytest.raises(ExpectationError, match="does not"):
        narrator.check("does not", lambda: False)
    assert narrator.held == 1
    assert "✓ holds\n         ✗ does not\n" in capsys.readouterr().out


def test_what_was_found_is_handed_on_and_chapters_are_counted(capsys):
    narrator = Narrator(Console())
    assert narrator.check("there is a word", lambda: "word") == "word"
    narrator.chapter("The first", "")
    narrator.chapter("The [second]", "")
    assert "1 The first" in (said := capsys.readouterr().out)
    assert "2 The [second]" in said


def test_a_demo_that_fails_shows_the_logs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_stage, "TIMEOUT_S", 1.0)
    network = GooseNetwork("nosuch0", f"udp:{free_port()}", "for the driver there is no interface")
    assert play(tmp_path, network, is_encrypted=False) == 1
    said = capsys.readouterr().out
    assert "✗ the driver connects to the power unit" in said
    assert "The demo failed" in said
    assert "ethernet_interface: no Ethernet interface 'nosuch0'" in said


def test_a_process_that_has_ended_is_told_nothing(tmp_path):
    processes = Processes(tmp_path)
    processes.start("short", "this")
    deadline = time.monotonic() + 20
    while processes.is_running("short"):
        assert time.monotonic() < deadline
        time.sleep(0.02)  # its end is what is_running tells, and it has to be asked
    processes.tell("short", "something")
    processes.end_all()
    processes.tell("short", "something")


def test_the_certificates_fit_and_are_found_wherever_they_are(tmp_path):
    folder = make_certificates(tmp_path / "it's ü")
    table = tomllib.loads(settings(folder))
    assert table.pop("tls_enabled") is True
    ca, certificate, key = table.values()
    client_context(TlsFiles(ca=ca, certificate=certificate, key=key))


def test_another_demos_certificates_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "certificates").mkdir()
    assert demo.demo_command(arguments("--output", str(tmp_path), "--tls")) == 2
    assert "name another folder" in capsys.readouterr().err


def test_a_machine_without_iproute2_has_no_namespace(tmp_path, monkeypatch):
    (tmp_path / "unshare").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_obstacle() == "ip is not installed"
    assert "ip is not installed" in udp_network(9000, find_obstacle()).explanation


def test_the_event_log_is_read_by_whole_lines_and_from_a_mark_on(tmp_path):
    path = tmp_path / "events.jsonl"
    view = PsuView(path)
    assert view.mark() == 0
    line = json.dumps({"event": "connected"})
    path.write_text(line + "\n" + line[:5])
    assert view.mark() == 1
    with path.open("a") as file:
        file.write(line[5:] + "\n")
    assert view.wait_for(lambda event: event["event"] == "connected", 1, 0.0) == {"event": "connected"}
    assert view.wait_for(lambda event: event["event"] == "connected", 2, 0.0) is None
