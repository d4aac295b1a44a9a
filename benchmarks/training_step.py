"""A student's training step in the library's loop against the same step in a loop written by hand."""

from collections.abc import Iterator
from functools import partial

from benchmarks.scene import LOSS, Setting, batch, our_steps, plain_loop, student
from benchmarks.table import Row
from preceptor.learning.privilege import none
from preceptor.learning.tasks import Supervised

LIMIT = 1.05


def rows(setting: Setting) -> Iterator[Row]:
    shown = batch(setting)
    for size, rounds in setting.sizes.items():
        loop = plain_loop(setting, student(setting, size))
        task = Supervised(student(setting, size), none, LOSS)
        times = our_steps(setting, f"step-{size}", task, shown, partial(loop.step, shown.image, shown.mask), rounds)
        yield Row.of_times(f"training step, {size}", times, size == setting.weighed, at_most=LIMIT)


def ours(setting: Setting, steps: int) -> None:
    """For the measurement of memory: our steps alone."""
    our_steps(
        setting, "step", Supervised(student(setting, setting.weighed), none, LOSS), batch(setting), None, steps, 0
    )


def baseline(setting: Setting, steps: int) -> None:
    """The same, by hand."""
    shown, loop = batch(setting), plain_loop(setting, student(setting, setting.weighed))
    for _ in range(steps):
        loop.step(shown.image, shown.mask)
