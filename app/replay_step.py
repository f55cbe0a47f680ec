"""`fusioncharger replay LOG… --step`: go through a log turn by turn, forwards and back.

Reads commands line by line, from a terminal (with history) or a pipe; an empty line is `n`.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from ..replay.conditions import ConditionError, parse_condition
from ..replay.divergence import report
from ..replay.moments import MomentError
from ..replay.session import Session
from ..replay.state_text import state_text, turn_line
from ..replay.stepping import Step

HELP = """\
n [COUNT]   next turn (an empty line, too)        b [COUNT]   back
w WHEN      on to the next turn where it holds: connector/1.phase == Running (where it becomes true),
            input is SetpointRequested, input.connector == 1, output is StopRequested, differs; with `and`
g MOMENT    go to a turn (1234) or a time (10:00:05, +12.5)
p [ACTOR]   print the state after the turn: of all actors, or of one (connector/1)
d           print the turn: input, outputs, and what it changed
h           this help                             q           quit"""

KEPT = 2000
"""So many turns back cost nothing; what is further back is replayed from the snapshot before."""


class Stepping:
    """Where one is in the log."""

    def __init__(self, session: Session, since: str | None) -> None:
        """MomentError, LogError."""
        self._session = session
        self._steps: Iterator[Step] = session.steps(since)
        self._kept: deque[Step] = deque(maxlen=KEPT)
        self._place = -1
        """In `_kept`."""

    @property
    def step(self) -> Step | None:
        """The turn that one is at; None: before the first."""
        return self._kept[self._place] if self._place >= 0 else None

    def forward(self) -> Step | None:
        """The next turn; None at the log's end."""
        if self._place < len(self._kept) - 1:
            self._place += 1
            return self.step
        step = next(self._steps, None)
        if step is None:
            return None
        self._kept.append(step)
        self._place = len(self._kept) - 1
        return step

    def back(self) -> Step | None:
        """The turn before; None at the begin of the log, or of the driver's run."""
        if self._place > 0:
            self._place -= 1
            return self.step
        if self._place < 0:
            return None
        here = self._kept[0]
        try:
            return self.go_to(f"{here.run_id}:{here.turn.number - 1}")
        except MomentError:
            return None

    def go_to(self, moment: str) -> Step | None:
        """Be there; where there is no such turn, one stays where one is. MomentError."""
        there = self._session[moment]
        if self._session.remark:
            print(self._session.remark)
        self._steps = self._session.steps(f"{there.run_id}:{there.turn.number}")
        self._place = -1
        self._kept.clear()
        return self.forward()


def step_through(session: Session, since: str | None) -> int:
    """Carry out commands until there are no more; the exit code."""
    stepping = Stepping(session, since)
    _with_history()
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        print(HELP)
    _show(stepping.forward(), "the log has no turn there")
    while True:
        try:
            line = input("(replay) " if is_terminal else "").strip()
        except (EOFError, KeyboardInterrupt):
            return 0
        word, _, rest = line.partition(" ")
        if word in {"q", "quit"}:
            return 0
        try:
            _carry_out(stepping, word or "n", rest.strip())
        except (MomentError, ConditionError) as error:
            print(error)
        sys.stdout.flush()


def _carry_out(stepping: Stepping, word: str, rest: str) -> None:
    """ConditionError, MomentError."""
    match word:
        case "n" | "next":
            _repeat(stepping.forward, rest, "the log ends here")
        case "b" | "back":
            _repeat(stepping.back, rest, "the log begins here")
        case "w" | "when":
            condition = parse_condition(rest)
            if stepping.step is not None:
                condition.stops_at(stepping.step)  # a field that there is not is refused before going on
            while (step := stepping.forward()) is not None and not condition.stops_at(step):
                pass
            _show(step, "not until the log's end")
        case "g" | "goto":
            _show(stepping.go_to(rest), "there is no such turn")
        case "p" | "print" | "d" | "diff":
            _print(stepping.step, word[0], rest)
        case "h" | "help" | "?":
            print(HELP)
        case _:
            print(f"{word!r} is no command; h shows those that there are")


def _repeat(move: Callable[[], Step | None], rest: str, at_end: str) -> None:
    if rest and not rest.isdigit():
        print(f"{rest!r} is no number of turns")
        return
    for _ in range(int(rest or 1)):
        step = move()
        _show(step, at_end)
        if step is None:
            return


def _print(step: Step | None, what: str, rest: str) -> None:
    if step is None:
        print("no turn has been done yet; n goes to the first")
    elif what == "d":
        print(report(step.divergence()) if step.differs else _diff(step))
    elif rest and rest not in step.after:
        print(f"there is no actor {rest!r}; there are: {', '.join(step.after)}")
    else:
        states = {rest: step.after[rest]} if rest else step.after
        print(state_text(replace(step, after=states)))


def _diff(step: Step) -> str:
    """The report of a turn that does not differ, without the line that says where it does."""
    return report(step.divergence()).partition("\n")[2].lstrip("\n")


def _show(step: Step | None, otherwise: str) -> None:
    print(otherwise if step is None else turn_line(step))


def _with_history() -> None:
    """Arrow keys and history, where standard input is a terminal."""
    if sys.stdin.isatty():
        import readline  # noqa: F401, PLC0415 - input() uses it from then on
