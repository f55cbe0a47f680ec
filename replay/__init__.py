"""The journal and what is built on it: record every turn, read a log, replay it (architecture.md §4).

`from fusioncharger.replay import Session` is the front door for whoever examines a log (session.py).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Session"]


def __getattr__(name: str) -> object:
    """`Session` is loaded when it is asked for: the driver and the recorder have no use for it, and have to be
    up soon."""
    if name == "Session":
        from .session import Session  # noqa: PLC0415 - see above

        return Session
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
