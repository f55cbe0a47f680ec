"""`fusioncharger log pcap LOG… -o FILE.pcapng`: what a log says was on the wire, for Wireshark and tshark.

Two interfaces: `goose` (pcap_goose.py) and `modbus` (pcap_modbus.py). docs/formats.md says what in the file was
recorded and what is made up.

Exit codes: 0 written, 2 usage, 3 written as far as the log is whole, 4 format not supported.
"""

import argparse
import sys
from pathlib import Path

import msgspec

from .. import __version__
from ..actors.psu_link_state import PsuLinkState
from ..actors.system import restore
from ..messages.inputs import PowerRequestReplyReceived, Started
from ..messages.registers import RegisterMap, decode
from ..replay.log_format import SegmentHeader, type_name
from ..replay.logs import Log, Segment, open_logs
from ..replay.reader import EndKind, LogError, LogReader, Turn, UnsupportedFormatError
from ..replay.stepping import recorded_config
from .export_files import (
    Meter,
    OutputError,
    check_output,
    exit_code,
    new_file,
    told_ending,
)
from .log_files import DAMAGED, OK, add_logs, say_left_out
from .pcap_file import Interface, PcapngFile
from .pcap_goose import GOOSE_OUTPUTS, SentGoose, connector_states
from .pcap_modbus import MODBUS_OUTPUTS, MODBUS_PORT, ModbusConversation

_GOOSE, _MODBUS = 0, 1
_ON_THE_WIRE = frozenset(output.__name__ for output in (*GOOSE_OUTPUTS, *MODBUS_OUTPUTS))
_INTERFACES = (
    Interface(
        "goose",
        "GOOSE frames: received ones as recorded; sent ones made again, with their repeats, HMACs zeroed",
    ),
    Interface(
        "modbus",
        f"Modbus in TCP packets that are made up; the dispenser, which answers, has port {MODBUS_PORT}",
    ),
)
_SECTION_COMMENT = """\
Made from a journal of fusioncharger, not captured. docs/formats.md says what was recorded and what is made up.
GOOSE: received frames are as they came. Sent ones are made again; their HMACs are zeros: keys are not recorded.
Modbus: the dispenser opens the TCP connection, and on it the PSU asks. So that Wireshark shows requests as \
Query and answers as Response, the dispenser's end has port 502 here. Function 0x41: fusioncharge-modbus.lua.
Key registers hold zeros."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `log pcap` takes."""
    add_logs(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write (.pcapng)"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there already")


def pcap_command(arguments: argparse.Namespace) -> int:
    """Write the file and say what is in it; the exit code."""
    output: Path = arguments.output
    try:
        log = open_logs(arguments.logs)
        check_output(output, log, force=arguments.force)
        say_left_out(log)
        with new_file(output) as file:
            pcapng = PcapngFile(file, f"fusioncharger {__version__}", _SECTION_COMMENT, _INTERFACES)
            is_whole = _write(log, pcapng)
    except (LogError, OutputError) as error:
        print(error, file=sys.stderr)
        return exit_code(error)
    print(f"{output}: {pcapng.packets[_GOOSE]} GOOSE frames, {pcapng.packets[_MODBUS]} packets of Modbus")
    return OK if is_whole and not log.unreadable else DAMAGED


def _write(log: Log, pcapng: PcapngFile) -> bool:
    """All segments; False if one of them was damaged."""
    is_whole = True
    former: Segment | None = None
    run: _Run | None = None
    with Meter(log, "pcap") as meter:
        for segment in log.segments:
            with segment.read() as reader:
                if run is None or former is None or not _goes_on(former, segment):
                    run = _Run(reader.header, pcapng, run.connections if run else 0)
                for turn in meter.turns(segment, reader):
                    is_whole = run.turn(turn, reader) and is_whole
                run.end_segment(reader)
                is_whole = told_ending(segment, reader) and is_whole
            former = segment
    return is_whole


def _goes_on(former: Segment, segment: Segment) -> bool:
    """Whether what is known of the former segment still counts. What was recovered from behind damage has no
    snapshot that would tell more."""
    is_recovered = not segment.header.snapshot and segment.header.run_id == former.header.run_id
    return is_recovered or segment.follows(former)


class _Run:
    """One run of the driver, or a part of it without a break."""

    def __init__(self, header: SegmentHeader, pcapng: PcapngFile, connections_before: int) -> None:
        """UnsupportedFormatError if configuration or snapshot are not understood."""
        config = recorded_config(header)
        self._pcapng = pcapng
        self._utc_offset_ns = 0
        self._utc_ns = 0
        """Of the present turn, or what came after the last one."""
        self._goose = SentGoose(config, self._take_goose)
        self._modbus = ModbusConversation(config, self._take_modbus, connections_before)
        try:
            states = restore(header.snapshot)
        except (msgspec.ValidationError, LookupError) as error:
            msg = f"the snapshot does not fit this version: {error}"
            raise UnsupportedFormatError(msg) from None
        link = states.get("psu_link")
        count = len(config.connectors)
        if isinstance(link, PsuLinkState):
            register = RegisterMap(count).by_key["1/mac_address"]
            mac = decode(register, link.registers.get(register.key, (0,) * register.words))
            if isinstance(mac, bytes):
                self._goose.start_with(mac, connector_states(states, count))
            if link.connected:
                self._modbus.start_with(link.connection)

    @property
    def connections(self) -> int:
        """How many Modbus connections there were, with those before this run."""
        return self._modbus.connections

    def turn(self, turn: Turn, log: LogReader) -> bool:
        """The next turn; False if it holds an output that was altered, which is left out."""
        if log.gap is not None and turn.number == log.header.first_turn:
            # What was repeated, and until when, is not known.
            gap = log.gap
            self._goose.forget()
            self._modbus.note(
                f"Before this, turns {gap.first_turn} to {gap.last_turn} are missing: {gap.reason}"
            )
        self._goose.advance(turn.at_ns)
        self._utc_ns = turn.utc_ns
        self._utc_offset_ns = turn.utc_ns - turn.at_ns
        message = turn.input
        if isinstance(message, Started):
            self._goose.set_mac(message.goose_mac)
        if isinstance(message, PowerRequestReplyReceived):
            self._pcapng.packet(_GOOSE, turn.utc_ns, message.frame, inbound=True)
        self._goose.received(message)
        self._modbus.received(message)
        is_whole = True
        for number, recorded in enumerate(turn.outputs, 1):
            if not recorded.intact:
                is_whole = False
                what = f"the checksum of output {number} of turn {turn.number} fails: it is left out"
                print(what, file=sys.stderr)
            elif type_name(recorded.payload) in _ON_THE_WIRE:
                output = recorded.message()
                self._goose.performed(output)
                self._modbus.performed(output)
        return is_whole

    def end_segment(self, log: LogReader) -> None:
        """All its turns were given."""
        if log.ending is not None and log.ending.kind is EndKind.GOODBYE:
            self._goose.finish()
            self._modbus.finish()  # the link is closed last

    def _take_goose(self, at_ns: int, frame: bytes) -> None:
        self._utc_ns = at_ns + self._utc_offset_ns
        self._pcapng.packet(_GOOSE, self._utc_ns, frame)

    def _take_modbus(self, frame: bytes, inbound: bool, comment: str) -> None:
        self._pcapng.packet(_MODBUS, self._utc_ns, frame, inbound=inbound, comment=comment)
