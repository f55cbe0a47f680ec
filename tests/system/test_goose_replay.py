"""A reply that was captured on the cable is sent again, to the real driver (docs/security.md).

The mock has one fixed key: the worst case, as with it a frame of an earlier session still verifies.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fusioncharger.io.goose_codec import GooseError, decode
from fusioncharger.io.goose_port import open_port
from fusioncharger.messages.goose import PowerRequestReply
from fusioncharger.messages.inputs import GooseFramesDropped, PowerRequestReplyReceived
from rig import TIMEOUT_S, Rig, rig

ALLOCATION_TIMEOUT_S = 2
SETTINGS = f"module_placeholder_allocation_timeout_s = {ALLOCATION_TIMEOUT_S}\n"
FAILED = ("VendorWarning", "module_placeholder_allocation_failed")


@contextlib.contextmanager
def the_cable() -> Iterator["Cable"]:
    cable = Cable()
    try:
        yield cable
    finally:
        cable.close()


class Cable:
    """Someone at the cable between dispenser and PSU."""

    def __init__(self) -> None:
        self._ear, self._mouth = open_port("veth1"), open_port("veth0")

    def capture_reply(self) -> bytes:
        """The next reply of the PSU that goes by."""
        while (frame := self._ear.receive(TIMEOUT_S)) is not None:
            with contextlib.suppress(GooseError):
                if isinstance(decode(frame).message, PowerRequestReply):
                    return frame
        raise AssertionError("no reply went by")

    def play(self, frame: bytes) -> None:
        self._mouth.send(frame)

    def close(self) -> None:
        self._ear.close()
        self._mouth.close()


def session_with_captured_reply(system: Rig, cable: Cable) -> bytes:
    """A car comes, is served and leaves; the reply that it was served with."""
    mark = system.driver.log.mark()
    system.everest.bsp(1, "B")
    reply = cable.capture_reply()
    system.driver.log.wait(lambda line: "-> Running (placeholder reply)" in line, after=mark)
    system.everest.bsp(1, "A")
    system.driver.log.wait(lambda line: "-> CarDisconnected" in line, after=mark)
    return reply


def plug_in_without_answer(system: Rig) -> int:
    """A car comes, and the PSU does not answer the placeholder request; where the driver's log stood."""
    system.psu("placeholder", reply="withhold")
    log = system.driver.log.mark()
    system.everest.bsp(1, "B")
    # The mock may still have the session before to tell of; the driver's log has been read up to its end.
    system.driver.log.wait(lambda line: "-> ConnectedNoAllocation" in line, after=log)
    return log


def info(system: Rig) -> str:
    """What the field engineer sees of the log."""
    command = [sys.executable, "-m", "fusioncharger", "log", "info", str(system.logs()[-1])]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("played", "reason"), [(0, "replayed"), (1, "duplicate")])
def test_enforced_a_captured_reply_allocates_nothing(tmp_path: Path, played: int, reason: str) -> None:
    settings = SETTINGS + 'goose_replay_protection = "enforce"\n'
    with rig(tmp_path, settings=settings) as system, the_cable() as cable:
        system.start_driver()
        replies = [session_with_captured_reply(system, cable) for _ in range(2)]
        log = plug_in_without_answer(system)
        cable.play(replies[played])
        line = system.driver.log.wait(lambda line: "GOOSE frames dropped" in line, after=log)
        assert f"({reason}: 1; connector 5: stNum {played + 1}, sqNum 0, t 20" in line
        assert "after stNum 2, sqNum 0" in line
        system.driver.log.wait(lambda line: "-> Running (timeout)" in line, after=log)
        system.everest.wait_error(1, *FAILED)
        # What the PSU itself says is accepted as ever.
        system.everest.bsp(1, "A")
        system.psu("placeholder", reply="answer")
        session_with_captured_reply(system, cable)
        assert system.driver.terminate() == 0
        drops = [turn.input for turn in system.turns() if isinstance(turn.input, GooseFramesDropped)]
        assert [(drop.counts, drop.suspected) for drop in drops] == [({reason: 1}, {})]
        assert f"GOOSE frames dropped: 1 {reason}" in info(system)
        assert system.replay()[0] == 0


def test_enforced_a_psu_that_restarts_with_the_same_key_is_believed(tmp_path: Path) -> None:
    """Its stNum begins anew; what was captured before is refused before and after its first reply."""
    settings = SETTINGS + 'goose_replay_protection = "enforce"\n'
    with rig(tmp_path, settings=settings) as system, the_cable() as cable:
        system.start_driver()
        old = []
        for _ in range(3):
            mark = system.mock.events.mark()
            old.append(session_with_captured_reply(system, cable))
            # Else it is started anew with a repeat of the request before that still waits at its socket.
            system.wait_stop(1, after=mark)
        mark = system.mock.events.mark()
        system.psu("restart")
        system.mock.events.wait(lambda event: event["event"] == "round_done", after=mark)
        system.wait_stop(1, after=mark)
        log = plug_in_without_answer(system)
        cable.play(old[0])
        system.driver.log.wait(lambda line: "(replayed: 1;" in line, after=log)
        system.driver.log.wait(lambda line: "-> Running (timeout)" in line, after=log)
        system.everest.bsp(1, "A")
        system.psu("placeholder", reply="answer")
        assert decode(session_with_captured_reply(system, cable)).header.st_num == 1
        plug_in_without_answer(system)
        for reply in old:
            cable.play(reply)
        system.driver.log.wait(lambda line: "-> Running (timeout)" in line, after=system.driver.log.mark())
        assert system.driver.terminate() == 0
        drops = [turn.input for turn in system.turns() if isinstance(turn.input, GooseFramesDropped)]
        assert sum(drop.counts["replayed"] for drop in drops) == 1 + len(old)


def test_observed_a_captured_reply_is_counted_and_believed(tmp_path: Path) -> None:
    with rig(tmp_path, settings=SETTINGS) as system, the_cable() as cable:
        system.start_driver()
        reply = session_with_captured_reply(system, cable)
        log = plug_in_without_answer(system)
        cable.play(reply)
        system.driver.log.wait(lambda line: "-> Running (placeholder reply)" in line, after=log)
        line = system.driver.log.wait(lambda line: "look" in line and "played again" in line, after=log)
        assert "GOOSE frames accepted that look played again (duplicate: 1; connector 5: stNum 1" in line
        assert system.driver.terminate() == 0
        answers = [turn.input for turn in system.turns() if isinstance(turn.input, PowerRequestReplyReceived)]
        assert [answer.frame for answer in answers] == [reply, reply]
        assert "GOOSE frames accepted that look played again: 1 duplicate" in info(system)
        assert system.replay()[0] == 0
