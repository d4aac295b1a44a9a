"""The cost of distillers: all are measured, on one student, and judged by their ratio."""

from pathlib import Path

import pytest
import torch

from benchmarks.distillers import FREE, LEAST, PAIRS, PLAIN, Course, Pair, _line
from benchmarks.scene import Setting
from preceptor.distillers.zoo import DISTILLERS

QUICK = Setting(True, 0, Path())
TWO = Pair("fcn_r50", "fcn_r18", ("kd", "review"))


def values(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_every_distiller_is_measured() -> None:
    assert {name for pair in PAIRS for name in pair.distillers} == set(DISTILLERS)


def test_one_student_takes_the_steps_of_all_and_the_teacher_stays() -> None:
    course = Course(QUICK, TWO, TWO.distillers)
    for name in (PLAIN, LEAST, *TWO.distillers):
        before, own = values(course.student), values(course.distillers["review"])
        course.step(name)()
        assert any(not torch.equal(*pair) for pair in zip(before, values(course.student), strict=True))
        changed = any(not torch.equal(*pair) for pair in zip(own, values(course.distillers["review"]), strict=True))
        assert changed == (name == "review")
    course.teacher.check_unchanged()
    assert course.gflops("review") > course.gflops("kd") == 0


def test_plain_step_is_weighed_without_a_teacher() -> None:
    course = Course(QUICK, TWO, (), with_teacher=False)
    course.step(PLAIN)()
    assert not hasattr(course, "teacher")


@pytest.mark.parametrize(
    ("name", "seconds", "met"), [("kd", 1.3, True), ("kd", 1.4, False), ("review", 9.0, None), (PLAIN, 0.5, None)]
)
def test_line_is_judged_against_student_and_teacher(name: str, seconds: float, met: bool | None) -> None:
    taken = {PLAIN: [0.5] * 3, LEAST: [1.0] * 3} | {name: [seconds] * 3}
    own = (0, 0.0) if name in DISTILLERS else None
    line = _line(TWO, name, taken, {PLAIN: 100.0, LEAST: 150.0, name: 300.0}, own)
    assert line.met is line.plain()["met"] is met
    assert line.values["against_student_and_teacher"][0] == pytest.approx(seconds)
    assert line.values["against_student"][0] == pytest.approx(2 * seconds)
    assert (line.cells[f"memory against {LEAST}"] == "2.00") == (own is not None)


def test_only_review_is_free_of_a_bound() -> None:
    assert FREE == ("review",)
