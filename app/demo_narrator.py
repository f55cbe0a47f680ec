"""Tells the demo's story on the terminal: numbered chapters, who does what, ✓ or ✗."""

from collections.abc import Callable
from typing import TypeVar

from rich.console import Console
from rich.markup import escape

T = TypeVar("T")


class ExpectationError(Exception):
    """Something did not hold; it has been shown."""


class Narrator:
    """Counts the chapters, and what held."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._chapters = 0
        self.held = 0

    def chapter(self, title: str, explanation: str) -> None:
        """A new part of the story."""
        self._chapters += 1
        self._console.print()
        self._line(f"[bold cyan]{self._chapters} {escape(title)}[/]")
        self._line(f"[dim]{escape(explanation)}[/]")

    def says(self, who: str, what: str) -> None:
        """Someone acts."""
        self._line(f"  [yellow]{who:>8}[/] {escape(what)}")

    def check(self, expectation: str, find: Callable[[], T | None]) -> T:
        """What `find` found, having waited for what has to happen. ExpectationError if that is nothing."""
        with self._console.status(f"waiting: {escape(expectation)}"):
            found = find()
        mark = "[bold green]✓[/]" if found else "[bold red]✗[/]"
        self._line(f"         {mark} {escape(expectation)}")
        if not found:
            raise ExpectationError(expectation)
        self.held += 1
        return found

    def _line(self, markup: str) -> None:
        self._console.print(markup, highlight=False, soft_wrap=not self._console.is_terminal)
