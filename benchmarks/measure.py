"""Two contenders in turn, round after round, so that whatever else the machine does hits both alike."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

WARM = 3
"""Rounds that are not counted: memory is taken, kernels are chosen, the optimiser makes its state."""


@dataclass
class Times:
    """Seconds of each counted round."""

    ours: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)

    def ratio(self) -> tuple[float, float, float]:
        """Median and quartiles of the rounds' ratios, ours to baseline."""
        return middle([a / b for a, b in zip(self.ours, self.baseline, strict=True)])

    def medians(self) -> tuple[float, float]:
        """Median seconds of ours and of the baseline."""
        return statistics.median(self.ours), statistics.median(self.baseline)


def middle(values: list[float]) -> tuple[float, float, float]:
    """(median, lower quartile, upper quartile)."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, low, high


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of `work`, all of its computing on the device included."""
    _finish()
    began = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - began


def in_turn(ours: Callable[[], object], baseline: Callable[[], object], rounds: int, warm: int = WARM) -> Times:
    """Call both in every round, ours first in even rounds and last in odd ones."""
    taken = by_turns({"ours": ours, "baseline": baseline}, rounds, warm)
    return Times(taken["ours"], taken["baseline"])


def by_turns(contenders: Mapping[str, Callable[[], object]], rounds: int, warm: int = WARM) -> dict[str, list[float]]:
    """Seconds of each contender in each counted round: all in every round, in turned order in odd ones."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm + rounds):
        for name in reversed(contenders) if number % 2 else contenders:
            spent = seconds(contenders[name])
            if number >= warm:
                taken[name].append(spent)
    return taken


class PacedLoader:
    """A training loader that hands out one batch again and again, and takes the time until the next one is asked for.

    That time is all that a training loop does for a step. In between, outside of it, the baseline takes its step;
    its place alternates as in `in_turn`.
    """

    def __init__(self, batch: Any, baseline: Callable[[], object] | None, rounds: int, warm: int = WARM) -> None:
        self.batch, self.baseline, self.rounds, self.warm = batch, baseline, rounds, warm
        self.times = Times()

    def __len__(self) -> int:
        return self.warm + self.rounds

    def load_state_dict(self, state: dict[str, int]) -> None:
        """A paced loader has one epoch, from its beginning."""

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            theirs = self._baseline() if number % 2 else 0.0
            _finish()
            began = time.perf_counter()
            yield self.batch
            _finish()
            own = time.perf_counter() - began
            theirs = theirs if number % 2 else self._baseline()
            if number >= self.warm:
                self.times.ours.append(own)
                self.times.baseline.append(theirs)

    def _baseline(self) -> float:
        return seconds(self.baseline) if self.baseline else 0.0


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
