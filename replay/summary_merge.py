"""One summary of several segments, in their order (summary.py).

What is open at the end of a segment and `continued` in the next one of the same run is one and the same.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from msgspec.structs import replace

from .summary import LIMIT, Occurrence, Session, Summary

T = TypeVar("T", Session, Occurrence)

ENDED_WITH_RUN = "driver ended without goodbye"


def merged(summaries: Iterable[Summary]) -> Summary:
    """Of consecutive segments. Monotonic times and turns are those of the first and the last run."""
    whole: Summary | None = None
    for summary in summaries:
        whole = summary if whole is None else _joined(whole, summary)
    return whole or Summary()


def _joined(former: Summary, later: Summary) -> Summary:
    same_run = former.run_id == later.run_id
    beyond = Counter(former.beyond) + Counter(later.beyond)
    known = former if later.turns == 0 else later
    return Summary(
        first_turn=former.first_turn if former.turns else later.first_turn,
        turns=former.turns + later.turns,
        first_utc_ns=former.first_utc_ns if former.turns else later.first_utc_ns,
        last_utc_ns=known.last_utc_ns,
        first_at_ns=former.first_at_ns if former.turns else later.first_at_ns,
        last_at_ns=known.last_at_ns,
        counts=_sums(former.counts, later.counts),
        run_id=later.run_id,
        segment=later.segment,
        sessions=_limited("sessions", _sessions(former.sessions, later.sessions, same_run), beyond),
        alarms=_limited("alarms", _occurrences(former.alarms, later.alarms, same_run), beyond),
        errors=_limited("errors", _occurrences(former.errors, later.errors, same_run), beyond),
        gaps=(former.gaps + later.gaps)[:LIMIT],
        goose_dropped=_sums(former.goose_dropped, later.goose_dropped),
        goose_suspected=_sums(former.goose_suspected, later.goose_suspected),
        beyond=dict(beyond),
        failed_turns=former.failed_turns + later.failed_turns,
        odd_records=former.odd_records + later.odd_records,
        end=later.end,
    )


def _sums(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _limited(kind: str, found: tuple[T, ...], beyond: Counter[str]) -> tuple[T, ...]:
    if len(found) > LIMIT:
        beyond[kind] += len(found) - LIMIT
    return found[:LIMIT]


def _sessions(former: tuple[Session, ...], later: tuple[Session, ...], same_run: bool) -> tuple[Session, ...]:
    going_on = {session.connector: session for session in later if session.continued} if same_run else {}
    found: list[Session] = []
    for session in former:
        if session.end_utc_ns == 0 and (rest := going_on.pop(session.connector, None)) is not None:
            found.append(
                replace(
                    rest,
                    begin_turn=session.begin_turn,
                    begin_utc_ns=session.begin_utc_ns,
                    metered_wh=session.metered_wh + rest.metered_wh,
                    readings=session.readings + rest.readings,
                    requested_wh=session.requested_wh + rest.requested_wh,
                    continued=session.continued,
                )
            )
        elif session.end_utc_ns == 0 and not same_run and not session.outcome.startswith("driver ended"):
            found.append(replace(session, outcome=ENDED_WITH_RUN))
        else:
            found.append(session)
    joined = (
        {session.connector for session in former if session.end_utc_ns == 0} - set(going_on)
        if same_run
        else set()
    )
    return (*found, *(session for session in later if not (session.continued and session.connector in joined)))


def _occurrences(
    former: tuple[Occurrence, ...],
    later: tuple[Occurrence, ...],
    same_run: bool,
) -> tuple[Occurrence, ...]:
    going_on = {(each.connector, each.name): each for each in later if each.continued} if same_run else {}
    joined: set[tuple[int, str]] = set()
    found: list[Occurrence] = []
    for each in former:
        key = each.connector, each.name
        if each.end_utc_ns == 0 and key in going_on:
            found.append(replace(each, end_utc_ns=going_on[key].end_utc_ns))
            joined.add(key)
        else:
            found.append(each)
    return (*found, *(each for each in later if not (each.continued and (each.connector, each.name) in joined)))
