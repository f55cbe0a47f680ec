"""GOOSE: what making and reading a frame costs, beside the bare HMAC of that many bytes."""

import hmac
import time
from collections.abc import Callable

from figures import Figure, best_us, spread
from fusioncharger.io.goose_codec import decode, encode, verify
from fusioncharger.messages.goose import GooseHeader, PowerRequest, PowerRequestReply
from fusioncharger.messages.types import PowerRequestMode, RequirementType

THEME = "GOOSE codec"
KEY = bytes(range(1, 49))
MACS = {"dst": bytes.fromhex("0205c0ffee01"), "src": bytes.fromhex("0205c0ffee02")}
HEADER = GooseHeader(st_num=12, sq_num=3, t_seconds=1_795_000_000, t_fraction=0x123456)
REQUEST = PowerRequest(
    connector_no=5,
    requirement_type=RequirementType.CHARGING,
    mode=PowerRequestMode.CONSTANT_CURRENT,
    voltage_v=400.0,
    current_a=125.0,
)
REPLY = PowerRequestReply(
    connector_no=5, requirement_type=1, result=0, mode=5, voltage_bits=0x43C80000, current_bits=0x42FA0000
)
LIMIT_US = 20.0
REST_S = 0.05


def measure(*, quick: bool) -> list[Figure]:
    """The figures."""
    rounds = 5 if quick else 25

    def sign(message: PowerRequest | PowerRequestReply) -> bytes:
        return encode(message, HEADER, **MACS, vlan_id=0, vlan_priority=5, key=KEY)

    frame = sign(REPLY)
    authenticated = decode(frame).authenticated

    def read() -> bool:
        return verify(decode(frame), KEY)

    assert read()
    works = [
        ("encode and sign a power request", lambda: sign(REQUEST), LIMIT_US),
        ("decode and verify a reply", read, LIMIT_US),
        (
            f"the bare HMAC-SHA256 of its {len(authenticated)} bytes",
            lambda: hmac.digest(KEY, authenticated, "sha256"),
            None,
        ),
    ]
    figures = [
        Figure(
            theme=THEME,
            name=name,
            unit="us",
            values={"": best_us(work, rounds=rounds)},
            at_most={} if limit_us is None else {"": limit_us},
        )
        for name, work, limit_us in works
    ]
    # What a driver meets that has little to do: it says more of the machine than of the codec.
    times_us = [_after_rest_us(lambda: sign(REQUEST)) for _ in range(20 if quick else 200)]
    name = f"encode and sign a power request, after {REST_S * 1000:g} ms of rest"
    return [*figures, spread(THEME, name, "us", times_us)]


def _after_rest_us(work: Callable[[], object]) -> float:
    time.sleep(REST_S)
    begin_ns = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - begin_ns) / 1000
