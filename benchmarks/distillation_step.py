"""A distillation step in the library's loop against a plain student step plus one forward pass of the teacher."""

from collections.abc import Callable, Iterator

import torch

from benchmarks.scene import LOSS, Setting, batch, our_steps, plain_loop, student, teacher
from benchmarks.table import Row
from preceptor.data.loading import Batch
from preceptor.distillers import zoo as distillers
from preceptor.learning.privilege import report
from preceptor.learning.tasks import Distilled, FrozenTeacher, Lesson

LIMIT = 1.05


def rows(setting: Setting) -> Iterator[Row]:
    shown = batch(setting)
    for size, rounds in setting.sizes.items():
        step = _by_hand(setting, size, shown)
        times = our_steps(setting, f"distil-{size}", _distilled(setting, size), shown, step, rounds)
        yield Row.of_times(f"distillation step, {size}", times, size == setting.weighed, at_most=LIMIT)


def _distilled(setting: Setting, size: str) -> Distilled:
    """TextFreeKD's second stage: the token distance at weight 0.5, teacher and student of one size."""
    learner, master = student(setting, size), teacher(setting, size)
    distiller = distillers.build("token_l1", student_taps=learner.taps, teacher_taps=master.taps)
    return Distilled(learner, {"teacher": FrozenTeacher(master, report)}, [Lesson(distiller, weight=0.5)], LOSS)


def _by_hand(setting: Setting, size: str, shown: Batch) -> Callable[[], object]:
    loop = plain_loop(setting, student(setting, size))
    master = teacher(setting, size).requires_grad_(False).to(setting.device, memory_format=loop.format).eval()

    def step() -> None:
        with torch.no_grad(), loop.autocast():
            master(shown.image.to(setting.device, memory_format=loop.format), shown.shown["report"].to(setting.device))
        loop.step(shown.image, shown.mask)

    return step


def ours(setting: Setting, steps: int) -> None:
    """For the measurement of memory: our steps alone."""
    our_steps(setting, "distil", _distilled(setting, setting.weighed), batch(setting), None, steps, 0)


def baseline(setting: Setting, steps: int) -> None:
    """The same, by hand and without a distillation loss."""
    step = _by_hand(setting, setting.weighed, batch(setting))
    for _ in range(steps):
        step()
