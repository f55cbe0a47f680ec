"""What is in a log: `log info` (docs/log.md).

A closed segment's summary stands in it; one that has none is read, record by record, up to its damage.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import msgspec
from msgspec import Struct

from .log_format import SegmentEnd, is_intact
from .logs import Log, Segment, missing_between
from .moments import CLOCK_SET_NS, utc_text
from .reader import NotALogError
from .records import RecordError, RecordReader
from .summary import POWER_UNIT, Occurrence, Session, Summariser, Summary
from .summary_merge import merged

_UPDATE_MESSAGES = 1 << 14


class SegmentInfo(Struct, frozen=True):
    """A segment, and what was found in it."""

    path: str
    run_id: str
    segment: int
    version: str
    """Of the driver that wrote it."""
    size_bytes: int
    first_turn: int
    turns: int
    ending: str
    """How it ends, in words."""
    is_whole: bool
    """False: it is damaged, or was never closed."""


class Info(Struct, frozen=True):
    """All that `log info` says."""

    summary: Summary
    segments: tuple[SegmentInfo, ...]
    versions: dict[str, str]
    """Of the last segment."""
    config_sha256: str
    """Of the last segment's configuration, as canonical JSON."""
    configs: int
    """How many different configurations the log holds."""
    unreadable: tuple[tuple[str, str], ...]
    """Files that were left out, and why."""
    missing: tuple[str, ...] = ()
    """What is not there between two segments, in words, beyond the gaps that were recorded."""
    clock: tuple[str, ...] = ()
    """Where the clock was set or wrong, by which the runs are in order, in words."""

    @property
    def is_whole(self) -> bool:
        """Whether no part of it is damaged or was left open."""
        return all(segment.is_whole for segment in self.segments)


def gather(log: Log, advance: Callable[[int], None]) -> Info:
    """`advance` is told of every so many bytes that are done. LogError."""
    summaries: list[Summary] = []
    segments: list[SegmentInfo] = []
    digests: list[str] = []
    for segment in log.segments:
        summary, damage = segment.summary, ""
        if summary is None:
            summary, damage = summarise(segment, advance)
        else:
            advance(segment.size_bytes)
        summaries.append(summary)
        digests.append(_digest(segment))
        segments.append(
            SegmentInfo(
                str(segment.path),
                segment.header.run_id,
                segment.header.segment,
                segment.header.versions.get("fusioncharger", "?"),
                segment.size_bytes,
                segment.header.first_turn,
                summary.turns,
                damage or ending_text(summary.end),
                not damage,
            )
        )
    return Info(
        merged(summaries),
        tuple(segments),
        log.segments[-1].header.versions,
        digests[-1],
        len(set(digests)),
        tuple((str(path), why) for path, why in log.unreadable),
        tuple(_missing(log, summaries)),
        tuple(_clock(summaries)),
    )


def _missing(log: Log, summaries: Sequence[Summary]) -> Iterator[str]:
    for (former, segment), (before, summary) in zip(pairwise(log.segments), pairwise(summaries), strict=True):
        last_turn = former.header.first_turn + before.turns - 1
        missing = missing_between(former, last_turn, segment)
        # A recorder that was killed took with it what was in its pipe: the gap begins after that.
        is_named = any(
            gap.first_turn <= last_turn + 1 and gap.last_turn == segment.header.first_turn - 1
            for gap in summary.gaps
        )
        if missing and not is_named:
            yield missing


def _clock(summaries: Sequence[Summary]) -> Iterator[str]:
    runs: dict[str, tuple[Summary, Summary]] = {}
    """First and last segment with a turn."""
    for summary in summaries:
        if summary.turns:
            first, _ = runs.get(summary.run_id, (summary, summary))
            runs[summary.run_id] = first, summary
    ended_utc_ns, ended = 0, ""
    for run_id, (first, last) in runs.items():
        lasted_ns = last.last_at_ns - first.first_at_ns
        set_by_ns = last.last_utc_ns - first.first_utc_ns - lasted_ns
        if abs(set_by_ns) >= CLOCK_SET_NS:
            way = "forward" if set_by_ns > 0 else "back"
            yield f"set {way} by {duration_text(abs(set_by_ns) / 1e9)} during run {run_id[:8]}"
        if first.first_utc_ns < ended_utc_ns:
            yield f"run {run_id[:8]} begins before run {ended} has ended: it may be the earlier one"
        ended_utc_ns, ended = last.last_utc_ns, run_id[:8]


def summarise(segment: Segment, advance: Callable[[int], None]) -> tuple[Summary, str]:
    """A segment without a summary, read up to its damage, and what that is (empty: none). LogError."""
    summariser = Summariser()
    damage = ""
    done_bytes = 0
    try:
        with segment.path.open("rb", buffering=0) as file:
            records = RecordReader(file)
            records.read_profile()
            for count, (topic, turn, utc_ns, at_ns, payload) in enumerate(records.messages(), 1):
                if not is_intact(payload):
                    damage = f"the checksum of a record of turn {turn} fails ({topic})"
                    break
                summariser.add(topic.rpartition("/")[2], payload, turn, at_ns, utc_ns)
                if count % _UPDATE_MESSAGES == 0:
                    advance(records.whole_bytes - done_bytes)
                    done_bytes = records.whole_bytes
    except RecordError as error:
        damage = str(error)
    except OSError as error:
        msg = f"{segment.path}: cannot be read: {error.strerror or error}"
        raise NotALogError(msg) from None
    advance(segment.size_bytes - done_bytes)
    summary = summariser.summary()
    return summary, damage or ("" if summary.end else "the note that ends a segment is missing")


def ending_text(end: SegmentEnd | None) -> str:
    """How a segment ends that is whole."""
    if end is None:
        return "not closed"
    if end.goodbye:
        return "closed by the driver"
    if end.continues:
        return "goes on in the next segment"
    if end.reason:
        return f"could not be written any further: {end.reason}"
    return "the driver ended without goodbye"


def _digest(segment: Segment) -> str:
    return hashlib.sha256(msgspec.json.encode(segment.header.config, order="sorted")).hexdigest()


# --- text --------------------------------------------------------------------------------------------------


def info_text(info: Info) -> str:
    """For a person: plain text."""
    summary = info.summary
    span_s = (summary.last_utc_ns - summary.first_utc_ns) / 1e9
    runs = len({segment.run_id for segment in info.segments})
    size_bytes = sum(segment.size_bytes for segment in info.segments)
    files = f"{_number(len(info.segments), 'segment')} of {_number(runs, 'run')}"
    lines = [
        f"from      {utc_text(summary.first_utc_ns)}" if summary.turns else "from      (no turns)",
        f"to        {utc_text(summary.last_utc_ns)}  ({duration_text(span_s)})"
        if summary.turns
        else "to        -",
        f"turns     {summary.turns} (first {summary.first_turn}); {sum(summary.counts.values())} messages",
        f"files     {files}, {size_bytes / 2**20:.1f} MiB",
        f"versions  {', '.join(f'{name} {version}' for name, version in info.versions.items())}",
        f"config    sha256 {info.config_sha256[:16]}"
        + (f" (the last of {info.configs} different ones)" if info.configs > 1 else ""),
    ]
    lines += [f"clock     {text}" for text in info.clock]
    lines += _section("sessions", _SESSION_HEAD, [_session_row(each) for each in summary.sessions], summary)
    for kind, found in (("alarms", summary.alarms), ("errors", summary.errors)):
        lines += _section(kind, _OCCURRENCE_HEAD, [_occurrence_row(each) for each in found], summary)
    gaps = [(str(gap.first_turn), str(gap.last_turn), gap.reason) for gap in summary.gaps]
    lines += _section("gaps", ("from turn", "to turn", "reason"), gaps, summary)
    lines += [*([""] if info.missing else []), *(f"not in the log: {text}" for text in info.missing)]
    if summary.goose_dropped:
        lines += ["", f"GOOSE frames dropped: {_counts(summary.goose_dropped)}"]
    if summary.goose_suspected:
        lines += ["", f"GOOSE frames accepted that look played again: {_counts(summary.goose_suspected)}"]
    if summary.failed_turns:
        lines += ["", f"failed turns: {summary.failed_turns} (log cat --type TurnFailed shows them)"]
    counted = sorted(summary.counts.items(), key=lambda item: (-item[1], item[0]))
    lines += _section("messages", ("type", "count"), [(name, str(count)) for name, count in counted], summary)
    lines += _section("segments", _SEGMENT_HEAD, [_segment_row(each) for each in info.segments], summary)
    lines += [f"left out  {path}: {why}" for path, why in info.unreadable]
    return "\n".join(line.rstrip() for line in lines)


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def duration_text(seconds: float) -> str:
    """0.25 s, 3 min 05 s, 2 h 03 min, 3 d 04 h."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"


_SESSION_HEAD = ("connector", "from turn", "begin (UTC)", "end (UTC)", "energy", "measured by", "outcome")
_OCCURRENCE_HEAD = ("where", "from turn", "begin (UTC)", "lasted", "what")
_SEGMENT_HEAD = ("run", "segment", "from turn", "turns", "MiB", "end", "file")


def _time(utc_ns: int, *, continued: bool = False) -> str:
    return ("before " if continued else "") + utc_text(utc_ns)[:-4]


def _session_row(session: Session) -> tuple[str, ...]:
    metered = session.readings > 0
    wh = session.metered_wh if metered else session.requested_wh
    return (
        str(session.connector),
        str(session.begin_turn),
        _time(session.begin_utc_ns, continued=session.continued),
        _time(session.end_utc_ns) if session.end_utc_ns else "-",
        f"{wh / 1000:.3f} kWh",
        "power meter" if metered else "none: requested",
        session.outcome,
    )


def _occurrence_row(each: Occurrence) -> tuple[str, ...]:
    lasted_s = (each.end_utc_ns - each.begin_utc_ns) / 1e9
    return (
        "power unit" if each.connector == POWER_UNIT else f"connector {each.connector}",
        str(each.begin_turn),
        _time(each.begin_utc_ns, continued=each.continued),
        duration_text(lasted_s) if each.end_utc_ns else "still there",
        each.name,
    )


def _segment_row(segment: SegmentInfo) -> tuple[str, ...]:
    return (
        segment.run_id[:8],
        str(segment.segment),
        str(segment.first_turn),
        str(segment.turns),
        f"{segment.size_bytes / 2**20:.1f}",
        segment.ending if segment.is_whole else f"cut: {segment.ending}",
        segment.path,
    )


def _section(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], summary: Summary) -> list[str]:
    """A titled table; one line if there is nothing in it."""
    if not rows:
        return ["", f"{title}: none"]
    more = summary.beyond.get(title, 0)
    return ["", f"{title}:", *table(head, rows), *([f"  … and {more} more"] if more else [])]


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def _counts(by_reason: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in by_reason.items())
