"""The log file's format, number 2 (architecture.md §4): what the recorder writes and the reader understands.

A run of the driver is recorded in segments, each a file. While it is written, a segment is an unchunked MCAP
file of profile `fusioncharger`, one channel per message type:

    journal/SegmentHeader                       first record: all that a replay needs to start
    journal/Gap                                 after it, if turns before this segment are missing
    in/<group>/<Type>, out/<group>/<Type> …     a turn: its Input, then its Outputs in their order
    journal/SegmentEnd                          last record, if the file was closed properly

A closed segment carries its summary (summary.py) in an MCAP metadata record, which the file's index names. Some
time later the recorder replaces it by its compressed form: the same messages in the same order, in chunks.

Of each MCAP message, `sequence` is the turn (modulo 2^32), `log_time` UTC in ns, `publish_time` monotonic time
since start in ns. Order is file order, never a time.

A payload is msgspec JSON whose last member is a CRC-32 over the bytes before it, since unchunked MCAP has none:

    {"type":"ModePublished","connector":1,"mode":"Off","crc32":"e3b7f1d2"}
    └──────────────── covered ──────────────────────┘└────── seal ───────┘

On the pipe from driver to recorder, a record is that payload behind a head, little-endian:

    0        4        8            16               24
    ┌────────┬────────┬────────────┬────────────────┬─────────────┐
    │ length │  turn  │ log_time   │ publish_time   │ payload …   │
    │  u32   │  u32   │ u64        │ u64            │ length bytes│
    └────────┴────────┴────────────┴────────────────┴─────────────┘
"""

import struct
import zlib
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from ..messages.inputs import AnyInput
from ..messages.outputs import AnyOutput

FORMAT = 2
"""Number of the format described here. A change of it comes with one that lifts the former (lifts.py)."""

SUMMARY_METADATA = "fusioncharger.summary"
"""Name of the metadata record that holds the summary, as JSON, under this key: """
SUMMARY_KEY = "json"

PROFILE = "fusioncharger"
"""Profile in the MCAP header."""

RECORD_LIMIT_BYTES = 64 * 2**20
"""No record is longer. A length beyond it is a damaged one, and must not make a reader allocate it."""

TURN_MODULUS = 2**32
"""MCAP's sequence is a u32, which a driver with 20 turns a second fills in seven years."""

PIPE_HEAD = struct.Struct("<IIQQ")

NOT_UNDERSTOOD = (msgspec.DecodeError, ValueError, LookupError, RecursionError)
"""What a payload may raise that its checksum proves and this version cannot decode: no JSON, no UTF-8 (a
ValueError), another shape, nested without end. A checksum only tells that nothing was altered by accident."""

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""JSON's integers have no end, and one with a thousand digits is no time and no turn."""


class Note(Struct, frozen=True, tag=True):
    """Base of what the journal says about itself."""

    group: ClassVar[str] = "journal"


class SegmentHeader(Note, frozen=True):
    """Beginning of a segment; with it, replay can start here. `format` comes first and never moves."""

    format: int
    run_id: str
    """One per start of the driver; the same in all segments of a run."""
    segment: Int64
    """Number of the segment within the run, from 1."""
    first_turn: Int64
    """Number of the first turn that follows."""
    utc_ns: Int64
    versions: dict[str, str]
    """Of the package, of Python and of the libraries that the core's behaviour depends on."""
    config: dict[str, Any]
    """messages.config.Config. It holds no secret: passwords and keys are named there by their files."""
    snapshot: dict[str, Any]
    """Every actor's state before `first_turn`, by the actor's name. Empty if it is not known, in what was
    recovered from behind damage (recover.py): that cannot be replayed."""
    boot_id: str = ""
    """Of the machine; it changes with every boot."""


class Gap(Note, frozen=True):
    """Before this segment, turns that the driver could not hand over, or not whole (none, if `last_turn` is
    before `first_turn`). More may be missing, which the former recorder had received and could not write: how
    the former segment ends tells."""

    reason: str
    first_turn: Int64
    last_turn: Int64


class SegmentEnd(Note, frozen=True):
    """End of a segment."""

    goodbye: bool
    """True: the driver ended it, and everything it had to say is in here. False: the driver died, or gave
    this recorder up; written by the recorder, after everything that the driver handed over."""
    lost_bytes: Int64 = 0
    """Length of a record that the driver had begun to hand over."""
    continues: bool = False
    """True: the run goes on in the next segment, whose first turn is the one after this one's last."""
    reason: str = ""
    """Why the file could not be written any further, where that ended it."""


AnyNote = SegmentHeader | Gap | SegmentEnd


class Report(Struct, frozen=True):
    """A line from the recorder to the driver."""

    segment: int
    event: Literal["ready", "unavailable", "closed"]
    """ready: the file stands and can be written. unavailable: it cannot, and the recorder has ended.
    closed: the pipe came to its end, and the file is complete."""
    reason: str = ""
    """Why it is unavailable."""
    path: str = ""
    """Of the file, when it is ready."""
    last_turn: int = 0
    """The last one that was kept, when it is unavailable; modulo 2^32, 0 if none."""


_KINDS = (("in/", get_args(AnyInput)), ("out/", get_args(AnyOutput)), ("", get_args(AnyNote)))

TYPES: Mapping[str, type[Struct]] = {tagged.__name__: tagged for _, types in _KINDS for tagged in types}
"""Every type that a log can hold, by its tag."""

TOPICS: Mapping[str, str] = {
    tagged.__name__: f"{kind}{tagged.group}/{tagged.__name__}" for kind, types in _KINDS for tagged in types
}
"""The topic of every type's channel, by its tag."""

_TAG = b'{"type":"'
_BEGINNINGS = {topic: f'{{"type":"{name}"'.encode() for name, topic in TOPICS.items()}

_encoder = msgspec.json.Encoder()
_SEAL = b',"crc32":"%08x"}'
SEAL_BYTES = len(_SEAL % 0)


def seal(message: Struct | Mapping[str, object]) -> bytes:
    """The message as the payload of its record."""
    return sealed(_encoder.encode(message))


def sealed(encoded: bytes) -> bytes:
    """A message's JSON as the payload of its record."""
    covered = encoded[:-1]
    return covered + _SEAL % zlib.crc32(covered)


def is_intact(payload: bytes) -> bool:
    """Whether the payload is as it was sealed."""
    covered = payload[:-SEAL_BYTES]
    return payload.endswith(_SEAL % zlib.crc32(covered))


def unsealed(payload: bytes) -> bytes:
    """The message's own JSON, without the checksum."""
    return payload[:-SEAL_BYTES] + b"}"


def is_sealed(payload: bytes, encoded: bytes) -> bool:
    """Whether the payload, less its checksum, is that message's JSON."""
    return len(payload) == len(encoded) - 1 + SEAL_BYTES and payload.startswith(encoded[:-1])


def belongs_to(topic: str, payload: bytes) -> bool:
    """Whether a payload of this type stands on that topic; true of a type that is unknown here."""
    beginning = _BEGINNINGS.get(topic)
    if beginning is not None and payload.startswith(beginning):
        return True
    try:
        return topic == TOPICS.get(type_name(payload), topic)
    except ValueError:
        return False


def type_name(payload: bytes) -> str:
    """The tag, which msgspec always writes as the first member. ValueError if there is none."""
    if not payload.startswith(_TAG):
        msg = "no type"
        raise ValueError(msg)
    start = len(_TAG)
    return payload[start : payload.index(b'"', start)].decode("ascii")


@cache
def json_schema(message_type: type[Struct]) -> bytes:
    """The payload's JSON schema, as Lichtblick and Foxglove Studio take it: their parser wants the object at
    the root (not a $ref), a `type` in every property, and `properties` in every object."""
    schema = msgspec.json.schema(message_type)
    definitions = schema["$defs"]
    root = _spelled_out(definitions[message_type.__name__], definitions)
    root["properties"]["crc32"] = {"type": "string"}
    return _encoder.encode(root)


def _spelled_out(node: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema node with its references resolved and the types named that msgspec leaves to be inferred."""
    if isinstance(node, list):
        return [_spelled_out(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        node = {**definitions[name], **{key: value for key, value in node.items() if key != "$ref"}}
    spelled_out = {key: _spelled_out(value, definitions) for key, value in node.items()}
    if "enum" in spelled_out:
        spelled_out["type"] = "string" if isinstance(spelled_out["enum"][0], str) else "integer"
    elif spelled_out.get("type") == "object":
        spelled_out.setdefault("properties", {})
    return spelled_out
