"""Which frames are accepted, and the thread that receives them."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fakes.goose_frames import DISPENSER_MAC, KEY, OTHER_KEY, PSU_MAC, frame_of, key_ring, reply, words_of
from fakes.recording_port import RecordingPort
from fusioncharger.io.goose_codec import GooseError, Refusal
from fusioncharger.io.goose_receiver import GooseAcceptance, GooseReceiver
from fusioncharger.io.key_ring import KeyRing
from fusioncharger.messages.config import ReplayProtection
from fusioncharger.messages.goose import StopRequest
from fusioncharger.messages.inputs import GooseFramesDropped, Input, PowerRequestReplyReceived
from fusioncharger.messages.types import StopReason

STOP_REQUEST = StopRequest(connector_no=5, reason=StopReason.NORMAL)
AT_NS = 1_000_000_000


def acceptance(
    ring: KeyRing, *, verify: bool = True, insecure: bool = False, replay_protection: ReplayProtection = "off"
) -> GooseAcceptance:
    return GooseAcceptance(
        DISPENSER_MAC,
        ring,
        verify_secure=verify,
        allow_insecure=insecure,
        connector_nos=(5, 6),
        replay_protection=replay_protection,
    )


def refusal_of(decides: GooseAcceptance, frame: bytes) -> Refusal:
    with pytest.raises(GooseError) as caught:
        decides.decide(frame, AT_NS)
    return caught.value.reason


def test_a_reply_signed_with_its_connectors_key_is_accepted():
    frame = frame_of(reply(6), OTHER_KEY, st_num=3)
    assert acceptance(key_ring(KEY, OTHER_KEY)).decide(frame, AT_NS).reply == PowerRequestReplyReceived(
        verified=(2,),
        connector_no=6,
        charging_sn=0xFFFF,
        requirement_type=1,
        result=0,
        mode=2,
        voltage_bits=0,
        current_bits=0,
        st_num=3,
        sq_num=0,
        frame=frame,
        connection=1,
    )


def test_a_key_that_connectors_share_verifies_for_all_of_them():
    assert acceptance(key_ring(KEY, KEY)).decide(frame_of(reply(5), KEY), AT_NS).reply.verified == (1, 2)


@pytest.mark.parametrize("insecure", [False, True])
def test_with_verification_only_the_right_key_will_do(insecure):
    ring = key_ring(KEY, OTHER_KEY)
    decides = acceptance(ring, insecure=insecure)
    assert refusal_of(decides, frame_of(reply(5), OTHER_KEY)) is Refusal.WRONG_CONNECTOR
    assert refusal_of(decides, frame_of(reply(5), bytes(range(48)))) is Refusal.BAD_HMAC
    assert refusal_of(decides, frame_of(reply(5), bytes(48))) is Refusal.BAD_HMAC
    assert refusal_of(decides, frame_of(reply(5), None)) is Refusal.UNSIGNED
    ring.retire(1)
    assert refusal_of(decides, frame_of(reply(5), KEY)) is Refusal.BAD_HMAC


def test_a_connector_without_a_key_verifies_nothing():
    assert refusal_of(acceptance(KeyRing(2)), frame_of(reply(5), bytes(48))) is Refusal.BAD_HMAC


def test_without_verification_any_signature_will_do():
    decides = acceptance(KeyRing(2), verify=False)
    assert decides.decide(frame_of(reply(5), OTHER_KEY), AT_NS).reply.verified == ()
    assert refusal_of(decides, frame_of(reply(5), None)) is Refusal.UNSIGNED


def test_insecure_takes_plain_frames_too():
    decides = acceptance(key_ring(KEY), verify=False, insecure=True)
    assert decides.decide(frame_of(reply(5), None), AT_NS).reply.verified == ()
    assert decides.decide(frame_of(reply(5), OTHER_KEY), AT_NS).reply.verified == ()


def test_what_is_not_for_us_is_refused():
    decides = acceptance(key_ring(KEY), verify=False, insecure=True)
    assert refusal_of(decides, frame_of(reply(5), None, src=DISPENSER_MAC)) is Refusal.OWN_FRAME
    assert refusal_of(decides, frame_of(STOP_REQUEST, None)) is Refusal.WRONG_GOID
    assert refusal_of(decides, frame_of(reply(7), None)) is Refusal.WRONG_CONNECTOR
    assert refusal_of(decides, b"") is Refusal.UNDECODABLE


def test_what_is_played_again_is_refused_where_that_is_enforced():
    ring = key_ring(KEY, OTHER_KEY)
    decides = acceptance(ring, replay_protection="enforce")
    old, new = (frame_of(reply(5), KEY, st_num=number) for number in (1, 2))
    for frame in (old, new, frame_of(reply(6), OTHER_KEY)):
        assert decides.decide(frame, AT_NS).suspicion is None
    assert refusal_of(decides, new) is Refusal.DUPLICATE
    assert refusal_of(decides, old) is Refusal.REPLAYED
    # Neither another sender nor a lost link makes it good.
    assert refusal_of(decides, frame_of(reply(5), KEY, st_num=1, src=b"\x02" * 6)) is Refusal.REPLAYED
    ring.absorb_write(2, 0x2115, words_of(KEY))
    assert refusal_of(decides, old) is Refusal.REPLAYED
    # Under another key it does not even verify, and that key begins anew.
    ring.absorb_write(2, 0x2115, words_of(bytes(range(48))))
    assert refusal_of(decides, old) is Refusal.BAD_HMAC
    assert decides.decide(frame_of(reply(5), bytes(range(48)), st_num=1), AT_NS).suspicion is None


def test_what_is_played_again_is_accepted_where_that_is_observed():
    decides = acceptance(key_ring(KEY), replay_protection="observe")
    frame = frame_of(reply(5), KEY, st_num=2)
    assert decides.decide(frame, AT_NS).suspicion is None
    for _ in range(2):
        accepted = decides.decide(frame, AT_NS)
        assert accepted.reply.frame == frame
        assert accepted.suspicion is not None
        assert accepted.suspicion.reason is Refusal.DUPLICATE


def test_without_protection_nothing_is_remembered():
    for decides in (
        acceptance(key_ring(KEY), replay_protection="off"),
        # Where nothing is verified whoever plays frames again may as well make new ones.
        acceptance(KeyRing(2), verify=False, replay_protection="enforce"),
    ):
        for st_num in (2, 2, 1):
            assert decides.decide(frame_of(reply(5), KEY, st_num=st_num), AT_NS).suspicion is None


def test_a_frame_that_is_not_accepted_is_not_remembered():
    decides = acceptance(key_ring(KEY, OTHER_KEY), replay_protection="enforce")
    right = frame_of(reply(5), KEY, st_num=3)
    assert decides.decide(right, AT_NS).suspicion is None
    ahead = frame_of(reply(5), KEY, st_num=900, t_seconds=1_800_000_000)
    # Every byte that is signed, from the ethertype on.
    for bad in (
        frame_of(reply(5), OTHER_KEY, st_num=900),
        frame_of(reply(5), bytes(range(48)), st_num=900),
        frame_of(reply(5), None, st_num=900),
        *(ahead[:at] + bytes((ahead[at] ^ 1,)) + ahead[at + 1 :] for at in range(16, len(ahead))),
        *(ahead[:length] for length in range(len(ahead))),
    ):
        assert refusal_of(decides, bad) not in (Refusal.DUPLICATE, Refusal.REPLAYED)
    assert decides.decide(frame_of(reply(5), KEY, st_num=4), AT_NS).suspicion is None
    assert decides.decide(ahead, AT_NS).suspicion is None  # it was right all along


@contextmanager
def receiving(port: RecordingPort, replay_protection: ReplayProtection = "off") -> Iterator[queue.Queue[Input]]:
    inputs: queue.Queue[Input] = queue.Queue()
    decides = acceptance(key_ring(KEY), replay_protection=replay_protection)
    receiver = GooseReceiver(port, decides, inputs.put)
    receiver.start()
    try:
        yield inputs
        assert receiver.is_alive()
    finally:
        receiver.close()
        assert not receiver.is_alive()


def test_replies_go_to_the_sink_and_drops_are_counted():
    port = RecordingPort()
    with receiving(port) as inputs:
        before_s = time.monotonic()
        for frame in (b"", frame_of(reply(5), OTHER_KEY), b"\xff" * 200, frame_of(reply(5), OTHER_KEY)):
            port.put(frame)
        port.put(frame_of(reply(5), KEY))
        assert isinstance(inputs.get(timeout=5), PowerRequestReplyReceived)

        counts = {"undecodable": 1, "bad_hmac": 2, "wrong_ethertype": 1}
        assert inputs.get(timeout=5) == GooseFramesDropped(counts=counts)
        assert time.monotonic() - before_s >= 1

        # The next report begins anew.
        port.put(b"")
        assert inputs.get(timeout=5) == GooseFramesDropped(counts={"undecodable": 1})


def st_nums(inputs: queue.Queue[Input], count: int) -> list[int]:
    return st_nums_of([inputs.get(timeout=5) for _ in range(count)])


def st_nums_of(received: list[Input]) -> list[int]:
    return [message.st_num for message in received if isinstance(message, PowerRequestReplyReceived)]


def test_frames_played_again_are_counted_and_the_first_is_shown():
    port = RecordingPort()
    frames = [frame_of(reply(5), KEY, st_num=number) for number in (1, 2, 2, 1)]
    shown = "connector 5: stNum 2, sqNum 0, t 2023-11-14T22:13:20.000Z after stNum 2"
    with receiving(port, "enforce") as inputs:
        for frame in frames:
            port.put(frame)
        assert st_nums(inputs, 2) == [1, 2]
        dropped = inputs.get(timeout=5)
        assert isinstance(dropped, GooseFramesDropped)
        assert (dropped.counts, dropped.suspected) == ({"duplicate": 1, "replayed": 1}, {})
        assert dropped.example.startswith(shown)
    with receiving(port, "observe") as inputs:
        for frame in frames:
            port.put(frame)
        assert st_nums(inputs, 4) == [1, 2, 2, 1]
        observed = inputs.get(timeout=5)
        assert isinstance(observed, GooseFramesDropped)
        assert (observed.counts, observed.suspected) == ({}, {"duplicate": 1, "replayed": 1})
        assert observed.example.startswith(shown)


def test_a_reply_sent_again_and_again_does_not_flood_the_core():
    port = RecordingPort()
    frames = 1000
    with receiving(port) as inputs:
        for _ in range(frames):
            port.put(frame_of(reply(5), KEY))
        received = [inputs.get(timeout=5)]
        while not isinstance(received[-1], GooseFramesDropped):
            received.append(inputs.get(timeout=5))
    accepted = len(received) - 1
    assert received[-1] == GooseFramesDropped(counts={"too_many": frames - accepted})
    assert 100 <= accepted <= 300  # 100 in each second that was touched


def test_a_captured_reply_that_is_refused_displaces_no_genuine_one():
    port = RecordingPort()
    with receiving(port, "enforce") as inputs:
        for _ in range(1000):
            port.put(frame_of(reply(5), KEY, st_num=1))
        port.put(frame_of(reply(5), KEY, st_num=2))
        received = [inputs.get(timeout=5)]
        while getattr(received[-1], "st_num", 0) != 2:
            received.append(inputs.get(timeout=5))
        assert st_nums_of(received) == [1, 2]


def test_frames_that_the_kernel_dropped_are_in_the_report():
    port = RecordingPort()
    port.take_drop_count = lambda: 17  # type: ignore[method-assign]
    with receiving(port) as inputs:
        port.put(b"")
        report = inputs.get(timeout=5)
    assert report == GooseFramesDropped(counts={"undecodable": 1, "kernel_queue_full": 17})


def test_an_error_of_the_port_does_not_end_the_thread():
    class FailingOncePort(RecordingPort):
        error_to_come: OSError | None = OSError("Network is down")

        def receive(self, timeout_s: float) -> bytes | None:
            error, self.error_to_come = self.error_to_come, None
            if error is not None:
                raise error
            return super().receive(timeout_s)

    port = FailingOncePort()
    with receiving(port) as inputs:
        port.put(frame_of(reply(5), KEY, src=PSU_MAC))
        assert isinstance(inputs.get(timeout=5), PowerRequestReplyReceived)
