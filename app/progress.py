"""A progress bar for long work on files: on standard error, and only where that is a terminal.

with progress("reading", total_bytes) as advance:
    for block in blocks:
        advance(len(block))
"""

import contextlib
import sys
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]


@contextlib.contextmanager
def progress(description: str, total_bytes: int) -> Iterator[Advance]:
    """Yields what is to be told of every so many bytes that are done. The bar vanishes at the end."""
    if not sys.stderr.isatty():
        yield _ignored
        return
    # Imported here: it takes a tenth of a second, which what has no terminal need not wait for.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total_bytes)

        def advance(count: int) -> None:
            bar.advance(task, count)

        yield advance


def _ignored(count: int) -> None:
    """Nobody looks."""
