"""Each distiller's training step against the student's plain step, with and without a forward pass of the teacher.

All contenders of a pair of networks take their steps in every round, on one student, one teacher and one optimiser.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.measure import Times, by_turns
from benchmarks.memory import peaks
from benchmarks.plain import PlainLoop
from benchmarks.scene import LOSS, TOKENS, WIDTH, Setting, batch
from benchmarks.table import Line, amount, spread, verdict
from preceptor.data.loading import Batch
from preceptor.distillers.base import Distiller
from preceptor.distillers.zoo import DISTILLERS
from preceptor.distillers.zoo import build as build_distiller
from preceptor.evaluation.cost import count_flops
from preceptor.learning.privilege import none, report
from preceptor.learning.tasks import Distilled, FrozenTeacher, Lesson
from preceptor.recipe import TrainingRecipe
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition, learnable_parameters

LIMIT = 1.35
FREE = ("review",)
"""Distillers whose cost is published, and only reported."""
TEXTGUIDED = ("token_l1", "token_l2", "token_skd", "imd", "cta")
LOGITS = ("kd", "dkd", "dist", "cwd", "boundary")
PLAIN, LEAST = "student", "student and teacher"
"""The two baselines: the student's plain step, and that with a forward pass of the teacher."""
CLASSES = 9


@dataclass(frozen=True)
class Pair:
    """A teacher, a student, and the distillers that are measured between them."""

    teacher: str
    student: str
    distillers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.teacher} to {self.student}"


PAIRS = (
    Pair("fcn_r50", "fcn_r18", tuple(name for name in DISTILLERS if name not in TEXTGUIDED)),
    Pair("guided", "unguided", (*TEXTGUIDED, *LOGITS)),
)
"""The pair of the distillation literature, and TextFreeKD's, whose logits have the size of the image."""


class Course:
    """One student that can take the steps of all the distillers of `names`, and those without a distiller.

    with_teacher: False leaves the teacher out; then only the plain step can be taken.
    """

    def __init__(self, setting: Setting, pair: Pair, names: tuple[str, ...], *, with_teacher: bool = True) -> None:
        size, count, side = ("tiny", 2, 96) if setting.quick else ("base", 2, 224)
        common: dict[str, Any] = {"in_channels": 3, "classes": CLASSES, "size": size}
        torch.manual_seed(setting.seed)
        self.student = zoo.build(pair.student, **common)
        self.distillers: dict[str, Distiller] = {}
        if with_teacher:
            teacher = zoo.build(pair.teacher, condition=Condition("report", TOKENS, WIDTH), **common)
            taps = {"student_taps": self.student.taps, "teacher_taps": teacher.taps}
            self.distillers = {name: build_distiller(name, **taps) for name in names}
        learning = torch.nn.ModuleList([self.student, *self.distillers.values()])
        self.loop = PlainLoop(learning, LOSS, TrainingRecipe(), setting.device, bf16=setting.bf16, channels_last=True)
        shown = batch(setting, count, side, CLASSES).to(setting.device)
        self.batch = Batch(shown.image.to(memory_format=self.loop.format), shown.mask, shown.cases, shown.shown)
        self.tasks: dict[str, Distilled] = {}
        if with_teacher:
            teacher.to(setting.device, memory_format=self.loop.format)
            self.teacher = FrozenTeacher(teacher, report if teacher.condition else none)
            for name, distiller in self.distillers.items():
                self.tasks[name] = Distilled(self.student, {"teacher": self.teacher}, [Lesson(distiller)], LOSS)

    def step(self, name: str) -> Callable[[], object]:
        """The step of a distiller, or of a baseline."""
        if name in self.tasks:
            return lambda: self.loop.learn(lambda: self.tasks[name](self.batch)["loss"])
        return partial(self._plain, with_teacher=name == LEAST)

    def _plain(self, *, with_teacher: bool) -> None:
        if with_teacher:
            with self.loop.autocast():
                self.teacher(self.batch)
        self.loop.learn(lambda: LOSS(self.student(self.batch.image).logits, self.batch.mask))

    def gflops(self, name: str) -> float:
        """Of the distiller's forward pass alone, on the whole batch."""
        with torch.no_grad(), self.loop.autocast():
            given: Any = (self.student(self.batch.image), self.teacher(self.batch), self.batch.mask)
        return count_flops(self.distillers[name], *given) / 1e9


def rows(setting: Setting) -> Iterator[Line]:
    for pair in PAIRS:
        course = Course(setting, pair, pair.distillers)
        names = [PLAIN, LEAST, *pair.distillers]
        taken = by_turns({name: course.step(name) for name in names}, 3 if setting.quick else 5, warm=1)
        weighed = names[:3] if setting.quick else names
        memory = dict(
            zip(
                weighed,
                peaks("distillers", setting.seed, setting.quick, [f"ours:{pair.student} {name}" for name in weighed]),
                strict=True,
            )
        )
        own = {name: (learnable_parameters(part), course.gflops(name)) for name, part in course.distillers.items()}
        for name in names:
            yield _line(pair, name, taken, memory, own.get(name))


def _line(
    pair: Pair,
    name: str,
    taken: dict[str, list[float]],
    memory: dict[str, float],
    own: tuple[int, float] | None,
) -> Line:
    """One distiller with its two ratios of time and of memory; the baselines have lines too."""
    milliseconds = 1e3 * Times(taken[name], taken[name]).medians()[0]
    ratios = {base: Times(taken[name], taken[base]).ratio() for base in (LEAST, PLAIN)}
    demanded = own is not None and name not in FREE
    met = ratios[LEAST][0] <= LIMIT if demanded else None
    held = memory.get(name)
    cells = {
        "networks": str(pair),
        "step": name,
        "time": amount(milliseconds, "ms"),
        f"against {LEAST}": spread(*ratios[LEAST]) if own else "",
        "demanded": f"at most {LIMIT:g}" if demanded else "",
        "met": verdict(met),
        f"against {PLAIN}": "" if name == PLAIN else spread(*ratios[PLAIN]),
        "peak memory": f"{held:.0f} MiB" if held else "",
        f"memory against {LEAST}": f"{held / memory[LEAST]:.2f}" if own and held else "",
        f"memory against {PLAIN}": f"{held / memory[PLAIN]:.2f}" if own and held else "",
        "own parameters": f"{own[0] / 1e6:.2f} M" if own else "",
        "own GFLOP, forward": f"{own[1]:.1f}" if own else "",
    }
    values = {
        "teacher": pair.teacher,
        "student": pair.student,
        "name": name,
        "milliseconds": milliseconds,
        "against_student_and_teacher": ratios[LEAST],
        "against_student": ratios[PLAIN],
        "at_most": LIMIT if demanded else None,
        "memory": held,
        "memory_student_and_teacher": memory[LEAST],
        "memory_student": memory[PLAIN],
        "parameters": own[0] if own else 0,
        "gflops": own[1] if own else 0.0,
    }
    return Line("Distillers", cells, values, met)


def ours(setting: Setting, steps: int, which: str) -> None:
    """For the measurement of memory: "student distiller", the steps of one contender alone.

    The plain step has no teacher in its memory.
    """
    student, _, name = which.partition(" ")
    pair = next(pair for pair in PAIRS if pair.student == student)
    names = (name,) if name in pair.distillers else ()
    course = Course(setting, pair, names, with_teacher=name != PLAIN)
    step = course.step(name)
    for _ in range(steps):
        step()
