"""The default step (channels_last, bf16 where the hardware has it) against float32 in NCHW, as the originals train."""

from collections.abc import Iterator
from functools import partial

from benchmarks.plain import PlainLoop
from benchmarks.scene import LOSS, Setting, batch, our_steps, student
from benchmarks.table import Row
from preceptor.learning.privilege import none
from preceptor.learning.tasks import Supervised
from preceptor.recipe import TrainingRecipe


def rows(setting: Setting) -> Iterator[Row]:
    shown = batch(setting)
    for size, rounds in setting.sizes.items():
        loop = _float32(setting, size)
        task = Supervised(student(setting, size), none, LOSS)
        step = partial(loop.step, shown.image, shown.mask)
        times = our_steps(setting, f"default-{size}", task, shown, step, max(4, rounds // 2))
        yield Row.of_times(f"default step against float32 NCHW, {size}", times, size == setting.weighed)


def _float32(setting: Setting, size: str) -> PlainLoop:
    network = student(setting, size)
    return PlainLoop(network, LOSS, TrainingRecipe(), setting.device, bf16=False, channels_last=False)


def ours(setting: Setting, steps: int) -> None:
    """For the measurement of memory: our steps alone."""
    our_steps(
        setting, "default", Supervised(student(setting, setting.weighed), none, LOSS), batch(setting), None, steps, 0
    )


def baseline(setting: Setting, steps: int) -> None:
    """The same in float32."""
    shown, loop = batch(setting), _float32(setting, setting.weighed)
    for _ in range(steps):
        loop.step(shown.image, shown.mask)
