"""What the publisher sends, as another implementation understands it: tshark's GOOSE dissector."""

import subprocess

from fakes.goose_frames import KEY, key_ring, power
from fusioncharger.io.goose_port import open_port
from fusioncharger.io.goose_publisher import GoosePublisher
from netns import network_namespace
from requirements import require_program

FIELDS = ("goose.goID", "goose.stNum", "goose.sqNum", "goose.numDatSetEntries", "goose.appid", "vlan.priority")


def test_tshark_dissects_what_the_publisher_sent():
    tshark = require_program("tshark")
    with network_namespace():
        port = open_port("veth0")
        command = [tshark, "-i", "veth1", "-l", "-Y", "goose", "-T", "fields"]
        for field in FIELDS:
            command += ["-e", field]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            publisher = GoosePublisher(
                port,
                key_ring(KEY),
                send_secure=True,
                vlan_id=0,
                vlan_priority=5,
                on_failure=print,
            )
            publisher.start()
            publisher.issue(power(st_num=7, voltage_v=0.0, current_a=0.0))
            # The first line shows that tshark listens; the next message it sees from its beginning.
            assert process.stdout is not None
            first = process.stdout.readline().split("\t")
            publisher.issue(power(st_num=8))
            lines: list[list[str]] = []
            while len(lines) < 5:
                line = process.stdout.readline().rstrip("\n").split("\t")
                if line[1] == "8":
                    lines.append(line)
            publisher.close()
            process.terminate()
        port.close()

    assert first[1] == "7"
    assert lines == [["CC/0$GO$PowerRequest", "8", str(sq_num), "8", "0x0001", "5"] for sq_num in range(5)]
