"""Frames and messages for GOOSE tests, and the captured vectors."""

import json
from pathlib import Path
from typing import Any

from fusioncharger.io.goose_codec import encode
from fusioncharger.io.key_ring import KeyRing
from fusioncharger.messages.goose import GooseHeader, GooseMessage, PowerRequestReply
from fusioncharger.messages.outputs import PowerRequested, StopRequested
from fusioncharger.messages.types import PowerRequestMode, RequirementType, StopReason

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "goose.json").read_text(encoding="utf-8")
)["frames"]

PSU_MAC = bytes.fromhex("020000000001")
DISPENSER_MAC = bytes.fromhex("020000000002")
KEY = bytes(range(1, 49))
OTHER_KEY = bytes(range(101, 149))
KEY_ADDRESSES = (0x2115, 0x2D15, 0x2E15, 0x2F15)


def words_of(key: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(key[at : at + 2], "big") for at in range(0, len(key), 2))


def key_ring(*keys: bytes, connection: int = 1) -> KeyRing:
    """A ring in which connector 1, 2, … have these keys."""
    ring = KeyRing(len(keys))
    for address, key in zip(KEY_ADDRESSES, keys, strict=False):
        ring.absorb_write(connection, address, words_of(key))
    return ring


def reply(connector_no: int = 1) -> PowerRequestReply:
    return PowerRequestReply(
        connector_no=connector_no, requirement_type=1, result=0, mode=2, voltage_bits=0, current_bits=0
    )


def frame_of(
    message: GooseMessage,
    key: bytes | None,
    *,
    st_num: int = 1,
    sq_num: int = 0,
    t_seconds: int = 1_700_000_000,
    src: bytes = PSU_MAC,
    dst: bytes = DISPENSER_MAC,
) -> bytes:
    header = GooseHeader(st_num=st_num, sq_num=sq_num, t_seconds=t_seconds, t_fraction=0)
    return encode(message, header, dst=dst, src=src, vlan_id=0, vlan_priority=5, key=key)


def power(
    connector: int = 1, *, st_num: int = 1, voltage_v: float = 400.0, current_a: float = 20.0
) -> PowerRequested:
    return PowerRequested(
        connector=connector,
        connector_no=connector + 4,
        dst=PSU_MAC,
        st_num=st_num,
        t_ns=1_700_000_000_500_000_000,
        requirement_type=RequirementType.CHARGING,
        mode=PowerRequestMode.CONSTANT_CURRENT,
        voltage_v=voltage_v,
        current_a=current_a,
    )


def stop(connector: int = 1, *, st_num: int = 1) -> StopRequested:
    return StopRequested(
        connector=connector,
        connector_no=connector + 4,
        dst=PSU_MAC,
        st_num=st_num,
        t_ns=1_700_000_000_500_000_000,
        reason=StopReason.NORMAL,
    )
