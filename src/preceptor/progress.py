"""How long work tells how far it is: live bars in a terminal, plain lines elsewhere, nothing in a library call."""

import sys
import time
from typing import Any, Literal

Kind = Literal["silent", "plain", "live"]
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """The silent one, and the interface of the others."""

    def note(self, text: str) -> None:
        """A message that stays on the screen."""

    def start(self, name: str, total: int, done: int = 0) -> None:
        """A piece of work begins, `done` of its `total` units finished already."""

    def advance(self, amount: int = 1, **values: float | str) -> None:
        """`amount` more units are done; the values are shown beside the bar."""

    def finish(self, **values: float | str) -> None:
        """The piece of work is over."""


def callback(progress: Progress, name: str) -> "Counter":
    """`progress` as a function (done, total), for one piece of work `name`."""
    return Counter(progress, name)


class Counter:
    """Turns calls (done, total) into start, advance and finish."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.progress, self.name, self.done = progress, name, -1

    def __call__(self, done: int, total: int, *_: Any) -> None:
        if self.done < 0:
            self.progress.start(self.name, total)
            self.done = 0
        self.progress.advance(done - self.done)
        self.done = done
        if done >= total:
            self.progress.finish()
            self.done = -1


class PlainProgress(Progress):
    """Lines on standard error, at most one in ten seconds for each piece of work, with the share that is done."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one place that prints

    def start(self, name: str, total: int, done: int = 0) -> None:
        self.name, self.total, self.done = name, total, done
        self.began = self.said = time.monotonic()
        self.values: dict[str, float | str] = {}

    def advance(self, amount: int = 1, **values: float | str) -> None:
        self.done += amount
        self.values |= values
        if time.monotonic() - self.said > SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            self.note(f"{self.name}: {self.done}/{self.total}{_shown(self.values)}")

    def finish(self, **values: float | str) -> None:
        self.values |= values
        self.note(f"{self.name}: done in {time.monotonic() - self.began:.0f} s{_shown(self.values)}")


class LiveProgress(Progress):
    """Bars with elapsed and remaining time, drawn by rich on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self.console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[values]}"),
        )
        self._new = lambda: Bars(*columns, console=self.console, transient=True, refresh_per_second=4)
        self.bars: Any = None

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def start(self, name: str, total: int, done: int = 0) -> None:
        self._stop()
        self.name, self.began = name, time.monotonic()
        self.values: dict[str, float | str] = {}
        self.bars = self._new()
        self.task = self.bars.add_task(name, total=total, completed=done, values="")
        self.bars.start()

    def advance(self, amount: int = 1, **values: float | str) -> None:
        self.values |= values
        self.bars.update(self.task, advance=amount, values=_shown(self.values))

    def finish(self, **values: float | str) -> None:
        self.values |= values
        self._stop()
        self.note(f"{self.name}: done in {time.monotonic() - self.began:.0f} s{_shown(self.values)}")

    def _stop(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None


def _shown(values: dict[str, float | str]) -> str:
    parts = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()]
    return ("  " + "  ".join(parts)) if parts else ""


def make_progress(kind: Kind) -> Progress:
    """The progress of that kind."""
    return {"silent": Progress, "plain": PlainProgress, "live": LiveProgress}[kind]()
