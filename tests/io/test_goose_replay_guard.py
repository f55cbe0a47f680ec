"""Frames that are played again, and frames that only look like it (docs/security.md)."""

from fusioncharger.io.goose_codec import Refusal
from fusioncharger.io.goose_replay_guard import MAX_PUBLISHERS, ReplayGuard
from fusioncharger.messages.goose import GooseHeader
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

KEY, OTHER_KEY = b"A" * 48, b"B" * 48
SECOND_NS = 1_000_000_000
LIFE_NS = 10 * SECOND_NS
"""timeAllowedToLive of every frame here."""
TOP = 0xFFFFFFFF


class Guard:
    """The guard, and what the tests rarely vary."""

    def __init__(self) -> None:
        self.guard = ReplayGuard()
        self.at_ns = 0
        self.connection = 1

    def judge(
        self, st_num: int, sq_num: int = 0, t: int = 1000, *, connector_no: int = 5, key: bytes = KEY
    ) -> Refusal | None:
        self.at_ns += 1_000_000
        header = GooseHeader(st_num, sq_num, t, 0)
        found = self.guard.judge(connector_no, key, header, connection=self.connection, at_ns=self.at_ns)
        return None if found is None else found.reason

    def seen(self, *st_nums: int, t: int = 1000) -> "Guard":
        for st_num in st_nums:
            assert self.judge(st_num, t=t) is None
        return self


def test_the_newest_frame_once_more_is_a_duplicate():
    guard = Guard().seen(1, 2)
    assert guard.judge(2) is Refusal.DUPLICATE
    assert guard.judge(2) is Refusal.DUPLICATE


def test_repeats_count_up_and_an_older_one_is_played_again():
    guard = Guard().seen(7)
    assert guard.judge(7, 1) is None
    assert guard.judge(7, 5) is None
    assert guard.judge(7, 4) is Refusal.REPLAYED
    assert guard.judge(7, 0) is Refusal.REPLAYED
    assert guard.judge(7, 6) is None


def test_a_lower_state_number_is_never_new_state_while_the_psu_lives():
    guard = Guard().seen(7)
    assert guard.judge(6) is Refusal.REPLAYED
    assert guard.judge(6, t=2000) is Refusal.REPLAYED
    assert guard.judge(1, 99, t=2000) is Refusal.REPLAYED
    assert guard.judge(7, 1, t=2000) is Refusal.REPLAYED  # another state under the same number
    assert guard.judge(8) is None


def test_a_state_number_that_jumps_ahead_is_a_loss():
    assert Guard().seen(1).judge(1 + 2**31 - 1) is None
    assert Guard().seen(1).judge(1 + 2**31) is Refusal.REPLAYED


def test_counters_roll_over_to_1():
    guard = Guard().seen(TOP - 1, TOP, 1)
    assert guard.judge(TOP) is Refusal.REPLAYED
    assert guard.judge(TOP - 1) is Refusal.REPLAYED
    assert guard.judge(2) is None
    assert Guard().seen(TOP - 100).judge(100) is None  # a few were lost on the way
    assert Guard().seen(3_000_000_000).judge(1) is Refusal.REPLAYED
    repeats = Guard().seen(1)
    for sq_num in (2**31 - 1, TOP - 3, TOP, 1, 2):
        assert repeats.judge(1, sq_num) is None
    assert repeats.judge(1, TOP) is Refusal.REPLAYED


def test_the_clock_of_the_psu_may_be_set_back():
    guard = Guard().seen(1, t=5000).seen(2, t=1000)
    assert guard.judge(1, t=5000) is Refusal.REPLAYED


def test_connectors_and_keys_are_apart():
    guard = Guard().seen(9)
    assert guard.judge(1, connector_no=6) is None
    assert guard.judge(1, key=OTHER_KEY) is None
    # The key that comes back finds what it left: frames that were captured under it verify again.
    assert guard.judge(9) is Refusal.DUPLICATE
    assert guard.judge(1) is Refusal.REPLAYED
    assert guard.judge(1, connector_no=6) is Refusal.DUPLICATE


def test_silence_and_a_new_connection_make_no_captured_frame_good():
    guard = Guard().seen(1, 2)
    guard.at_ns += 1000 * LIFE_NS
    assert guard.judge(1) is Refusal.REPLAYED
    guard.connection += 1
    assert guard.judge(2) is Refusal.DUPLICATE
    assert guard.judge(1) is Refusal.REPLAYED


def test_a_psu_that_was_away_may_count_anew():
    for is_reconnected in (False, True):
        guard = Guard().seen(50, 51, t=1000)
        if is_reconnected:
            guard.connection += 1
        else:
            guard.at_ns += LIFE_NS + 1
        assert guard.judge(1, t=1000) is Refusal.REPLAYED
        assert guard.judge(1, t=1001) is None
        assert guard.judge(2, t=1002) is None
        # What was captured before has a higher number, but an older time.
        assert guard.judge(51, t=1000) is Refusal.REPLAYED
        assert guard.judge(3, t=1003) is None


def test_a_psu_that_is_silent_only_shortly_did_not_restart():
    guard = Guard().seen(50)
    guard.at_ns += LIFE_NS - 2_000_000
    assert guard.judge(1, t=2000) is Refusal.REPLAYED


def test_what_is_suspected_is_shown_beside_the_newest():
    guard = ReplayGuard()
    for st_num in (4, 3):
        header = GooseHeader(st_num, 2, 1_700_000_000, 1 << 23)
        found = guard.judge(5, KEY, header, connection=1, at_ns=0)
    assert found is not None
    assert found.text == (
        "connector 5: stNum 3, sqNum 2, t 2023-11-14T22:13:20.500Z after "
        "stNum 4, sqNum 2, t 2023-11-14T22:13:20.500Z"
    )


def test_memory_is_bounded_and_the_longest_silent_key_is_forgotten():
    guard = Guard().seen(5)
    for number in range(MAX_PUBLISHERS - 1):
        assert guard.judge(1, key=number.to_bytes(48, "big")) is None
    assert guard.judge(6) is None
    assert guard.judge(1, key=b"one more") is None
    assert guard.judge(5) is Refusal.REPLAYED
    assert guard.judge(1, key=bytes(48)) is None  # that one had been silent for longest


class GenuineAndReplayed(RuleBasedStateMachine):
    """A PSU whose frames are lost and doubled, that restarts, and gets keys that it had before; and someone who
    has captured everything. Whatever happens, no frame of the PSU is suspected when it first comes, and every
    captured frame that verifies is, and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = ReplayGuard()
        self.at_ns = 0
        self.t = 1000
        self.connection = 1
        self.key = KEY
        self.st_num = self.sq_num = 0
        self.state_t = 0
        self.delivered: list[tuple[bytes, GooseHeader]] = []

    @initialize(first=st.sampled_from((1, 2, 1000, TOP - 3)))
    def begin(self, first: int) -> None:
        self.st_num = first - 1
        self.new_state(lost=False, states=1)

    def _suspects(self, key: bytes, header: GooseHeader) -> bool:
        self.at_ns += 1_000_000
        return self.guard.judge(5, key, header, connection=self.connection, at_ns=self.at_ns) is not None

    def _send(self, *, lost: bool) -> None:
        header = GooseHeader(self.st_num, self.sq_num, self.state_t, 0)
        if not lost:
            assert not self._suspects(self.key, header)
            self.delivered.append((self.key, header))

    @rule(lost=st.booleans(), states=st.integers(1, 5))
    def new_state(self, *, lost: bool, states: int) -> None:
        self.t += 1
        for _ in range(states):  # but for the last one they are lost
            self.st_num = 1 if self.st_num == TOP else self.st_num + 1
        self.sq_num, self.state_t = 0, self.t
        self._send(lost=lost)

    @rule(lost=st.booleans())
    def repeat(self, *, lost: bool) -> None:
        self.sq_num += 1
        self._send(lost=lost)

    @rule()
    def link_is_lost(self) -> None:
        self.connection += 1

    @rule(key=st.sampled_from((KEY, OTHER_KEY)))
    def key_is_written(self, key: bytes) -> None:
        self.key = key
        self.new_state(lost=False, states=1)

    @rule(quick=st.booleans(), lost=st.booleans())
    def psu_restarts(self, *, quick: bool, lost: bool) -> None:
        if quick:
            self.connection += 1
        else:
            self.at_ns += LIFE_NS + 1
        self.st_num = 0
        self.new_state(lost=lost, states=1)

    @rule(seconds=st.integers(0, 100))
    def time_goes_by(self, seconds: int) -> None:
        self.at_ns += seconds * SECOND_NS

    @precondition(lambda self: any(key == self.key for key, _ in self.delivered))
    @rule(data=st.data())
    def captured_frame_is_played(self, data: st.DataObject) -> None:
        captured = [header for key, header in self.delivered if key == self.key]
        assert self._suspects(self.key, data.draw(st.sampled_from(captured)))


GenuineAndReplayed.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_genuine_and_replayed = GenuineAndReplayed.TestCase
