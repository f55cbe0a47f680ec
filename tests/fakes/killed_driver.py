"""Drivers that are killed: `python killed_driver.py DIRECTORY COUNT SEED`.

Each is a fork that puts charging sessions through the core and a journal of its own, without end, and notes
in shared memory the last turn that it has handed over whole; it is killed at a random moment. A JSON line tells
what it had noted by then. It is one process that forks: starting Python 200 times takes longer than the rest.
"""

import json
import mmap
import os
import random
import signal
import sys
import time
from itertools import cycle
from pathlib import Path

from fakes.recorded_session import INPUTS, DrivenJournal

TURN, SEGMENTS = range(2)
"""What is noted: turns, and segments that were begun. A word each, which holds the old number or the new one
whenever the process is killed; struct.pack_into would clear it first."""
NOTE_BYTES = 2 * 8
LONGEST_LIFE_S = 0.05
SEGMENT_BYTES = 20_000


def drive(directory: Path, noted: memoryview) -> None:
    """Charge until killed; with a change to a new segment now and then."""
    driven = DrivenJournal(directory, segment_bytes=SEGMENT_BYTES)
    driven.open()
    segments = 1
    for message in cycle(INPUTS):
        driven.run([message])
        while driven.journal.waiting_bytes:
            driven.journal.pump()
        noted[TURN] = driven.turn
        noted[SEGMENTS] = segments
        driven.journal.read_reports()
        if driven.journal.is_due(0) and not driven.journal.is_prepared:
            driven.journal.prepare_replacement(driven.turn)
        if driven.journal.is_ready:
            segments += driven.begin_segment()


def kill_one(directory: Path, life_s: float, segments: int) -> int:
    """Start one, kill it some time after it has begun so many segments; the last turn that it had handed over
    whole."""
    with (
        mmap.mmap(-1, NOTE_BYTES) as memory,
        memoryview(memory) as as_bytes,
        as_bytes.cast("Q") as noted,
    ):
        child = os.fork()
        if child == 0:
            drive(directory, noted)
        while noted[SEGMENTS] < segments:
            time.sleep(0.001)
        time.sleep(life_s)  # the random moment
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return int(noted[TURN])


def main(directory: Path, count: int, seed: int) -> None:
    """Kill so many, one after the other."""
    chance = random.Random(seed)
    for number in range(count):
        log = directory / str(number)
        turn = kill_one(log, chance.uniform(0, LONGEST_LIFE_S), 1 + (number % 8 == 0))
        print(json.dumps({"log": str(log), "turn": turn}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
