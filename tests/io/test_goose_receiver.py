"""Which frames are accepted, and the thread that receives them."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fakes.goose_frames import DISPENSER_MAC, KEY, OTHER_KEY, PSU_MAC, frame_of, key_ring, reply
from fakes.recording_port import RecordingPort
from fusioncharger.io.goose_codec import GooseError, Refusal
from fusioncharger.io.goose_receiver import GooseAcceptance, GooseReceiver
from fusioncharger.io.key_ring import KeyRing
from fusioncharger.messages.goose import StopRequest
from fusioncharger.messages.inputs import GooseFramesDropped, Input, PowerRequestReplyReceived
from fusioncharger.messages.types import StopReason

STOP_REQUEST = StopRequest(connector_no=5, reason=StopReason.NORMAL)


def acceptance(ring: KeyRing, *, verify: bool = True, insecure: bool = False) -> GooseAcceptance:
    return GooseAcceptance(
        DISPENSER_MAC, ring, verify_secure=verify, allow_insecure=insecure, connector_nos=(5, 6)
    )


def refusal_of(decides: GooseAcceptance, frame: bytes) -> Refusal:
    with pytest.raises(GooseError) as caught:
        decides.decide(frame)
    return caught.value.reason


def test_a_reply_signed_with_its_connectors_key_is_accepted():
    frame = frame_of(reply(6), OTHER_KEY, st_num=3)
    assert acceptance(key_ring(KEY, OTHER_KEY)).decide(frame) == PowerRequestReplyReceived(
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
    )


def test_a_key_that_connectors_share_verifies_for_all_of_them():
    assert acceptance(key_ring(KEY, KEY)).decide(frame_of(reply(5), KEY)).verified == (1, 2)


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
    assert decides.decide(frame_of(reply(5), OTHER_KEY)).verified == ()
    assert refusal_of(decides, frame_of(reply(5), None)) is Refusal.UNSIGNED


def test_insecure_takes_plain_frames_too():
    decides = acceptance(key_ring(KEY), verify=False, insecure=True)
    assert decides.decide(frame_of(reply(5), None)).verified == ()
    assert decides.decide(frame_of(reply(5), OTHER_KEY)).verified == ()


def test_what_is_not_for_us_is_refused():
    decides = acceptance(key_ring(KEY), verify=False, insecure=True)
    assert refusal_of(decides, frame_of(reply(5), None, src=DISPENSER_MAC)) is Refusal.OWN_FRAME
    assert refusal_of(decides, frame_of(STOP_REQUEST, None)) is Refusal.WRONG_GOID
    assert refusal_of(decides, frame_of(reply(7), None)) is Refusal.WRONG_CONNECTOR
    assert refusal_of(decides, b"") is Refusal.UNDECODABLE


@contextmanager
def receiving(port: RecordingPort) -> Iterator[queue.Queue[Input]]:
    inputs: queue.Queue[Input] = queue.Queue()
    receiver = GooseReceiver(port, acceptance(key_ring(KEY)), inputs.put)
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
