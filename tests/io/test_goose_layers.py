"""The scapy layers against captured frames."""

import pytest
from fakes.goose_frames import KEY, VECTORS, frame_of, reply
from fusioncharger.io.goose_layers import Goose, GooseApdu
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Padding, Raw


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_captured_frame_is_dissected_and_gives_back_its_bytes(vector):
    frame = bytes.fromhex(vector["frame"])
    packet = Ether(frame + b"\0\0")
    apdu = packet[Goose].apdu

    assert packet[Dot1Q].vlan == int(vector["tci"], 16) & 0xFFF
    assert apdu.goID == vector["goID"].encode() + b"\0"
    assert (apdu.stNum, apdu.sqNum, apdu.confRev) == (vector["stNum"], vector["sqNum"], vector["confRev"])
    assert apdu.t == (
        vector["t_seconds"].to_bytes(4, "big")
        + vector["t_fraction"].to_bytes(3, "big")
        + bytes([vector["t_quality"]])
    )
    assert apdu.allData == vector["entries"]
    assert packet[Padding].load == b"\0\0"
    assert bytes(packet) == frame + b"\0\0"


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["key"]], ids=lambda vector: vector["name"])
def test_built_from_its_values_it_is_the_captured_frame(vector):
    frame = bytes.fromhex(vector["frame"])
    goose = Ether(frame)[Goose]
    names = {name: vector["goID"].encode() + b"\0" for name in ("goCbRef", "datSet", "goID")}
    apdu = GooseApdu(
        **names,
        t=goose.apdu.t,
        stNum=vector["stNum"],
        sqNum=vector["sqNum"],
        numDatSetEntries=len(vector["entries"]),
        allData=vector["entries"],
    )
    built = Goose(
        appid=goose.appid, reserved1=0x23, reserved2=goose.reserved2, apdu=apdu, extension=frame[-35:]
    )
    assert bytes(Ether(dst=vector["dst"], src=vector["src"]) / Dot1Q(prio=5, vlan=0) / built) == frame


def test_what_is_no_goose_stays_raw():
    frame = frame_of(reply(), KEY)
    packet = Ether(frame[:40])
    assert Goose not in packet
    assert packet[Raw].load == frame[18:40]
