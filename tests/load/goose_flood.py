"""Floods an interface with GOOSE frames: `goose_flood.py INTERFACE RATE SECONDS < FRAMES`.

FRAMES are hexadecimal, one a line, sent in turn, in bursts of one millisecond. At the end the number of frames
sent is printed.
"""

import socket
import sys
import time

BURST_S = 0.001


def main() -> None:
    interface, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    frames = [bytes.fromhex(line) for line in sys.stdin]
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)  # protocol 0: it receives nothing
    raw.bind((interface, 0))
    begin_s = time.monotonic()
    sent = 0
    while (elapsed_s := time.monotonic() - begin_s) < seconds:
        while sent < elapsed_s * rate:
            raw.send(frames[sent % len(frames)])
            sent += 1
        time.sleep(BURST_S)
    print(sent)


if __name__ == "__main__":
    main()
