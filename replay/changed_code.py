"""What does this version otherwise than the recorded one? Every turn of a log, compared (comparison.py).

Rules:
- A run goes on over its segments with the states that its turns lead to here: a snapshot in mid-run is what
  they led to there. Where turns are missing, the next segment's snapshot counts again.
- The Inputs are the recorded ones. A timer that fired in the log fires here, if it runs here
  (recorded_timers.py); one that this version alone starts never does.
"""

from collections.abc import Callable

from .comparison import Comparison
from .logs import Log, Segment, missing_between
from .reader import LogReader
from .replayer import Replay, replay
from .stepping import Stepper


def compare(
    log: Log, *, accept_new_fields: bool, done: Callable[[Segment, LogReader, Replay], None]
) -> Comparison:
    """The slow way: replayer.py stops at the first turn that differs. `done` is told of every segment that was
    read to its end, and what besides differences was found in it. LogError."""
    comparison = Comparison(accept_new_fields=accept_new_fields)
    stepper: Stepper | None = None
    former: Segment | None = None
    last_turn = 0
    for segment in log.segments:
        with segment.read() as reader:
            if not segment.header.snapshot:
                former = None
                done(segment, reader, replay(reader))
                continue
            goes_on = former is not None and former.header.run_id == segment.header.run_id
            if stepper is None or former is None or not goes_on or missing_between(former, last_turn, segment):
                stepper = Stepper(reader.header)
            else:
                stepper.go_on(reader.header)
            altered = ""
            for turn in reader.turns():
                comparison.add(stepper.step(turn).divergence())
                altered = altered or turn.altered()
            assert reader.ending is not None  # noqa: S101 - all turns have been read
            last_turn = reader.ending.last_turn
            done(segment, reader, Replay(0, 0, altered=altered))
        former = segment
    return comparison
