"""Names and options of distillers are checked, and every name has one line that says what it does."""

import pytest
import torch

from preceptor.distillers.base import Distiller
from preceptor.distillers.zoo import DISTILLERS, PRESETS, build, describe
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Tap

TAPS = (Tap("deep", 4, 8),)


def test_every_distiller_says_what_it_is():
    assert [name for name, _ in describe()] == list(DISTILLERS)
    assert all(20 < len(line) <= 120 and line.endswith(".") for _, line in describe())


def test_unknown_name_gets_the_nearest_one():
    with pytest.raises(RecipeError, match="did you mean token_l1"):
        build("tokenl1", student_taps=TAPS, teacher_taps=TAPS)


def test_unknown_option_gets_the_nearest_one():
    with pytest.raises(RecipeError, match="did you mean temperature"):
        build("kd", student_taps=TAPS, teacher_taps=TAPS, temprature=2)


@pytest.mark.parametrize("options", [{"temperature": "hot"}, {"temperature": 0}, {"temperature": True}, {"align": 1}])
def test_bad_values_are_refused(options):
    with pytest.raises(RecipeError):
        build("kd", student_taps=TAPS, teacher_taps=TAPS, **options)


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("kd", "align", "bigger", "smaller, "),
        ("kd", "interpolation", "cubic", "bilinear or nearest"),
        ("dkd", "at", "native", "logits or label"),
        ("kd", "standardise", 1, "bool, such as False"),
        ("dkd", "beta", float("nan"), "float, such as 8.0"),
        ("cwd", "seed", "1", "int, such as 0"),
    ],
)
def test_a_wrong_value_is_told_what_is_allowed(name, option, value, expected):
    with pytest.raises(RecipeError, match=f"distill.options.{option}(.|\n)*expected: .*{expected}"):
        build(name, student_taps=TAPS, teacher_taps=TAPS, **{option: value})


class Listed(Distiller):
    """Takes a list and an option that may be left open."""

    def __init__(self, student_taps, teacher_taps, taps=None, *, weights: tuple[float, ...] = (), top: int | None = 3):
        super().__init__()
        self.weights, self.top = weights, top


def test_lists_and_null_are_checked_by_their_annotation(monkeypatch):
    monkeypatch.setitem(DISTILLERS, "listed", Listed)
    made = build("listed", student_taps=TAPS, teacher_taps=TAPS, weights=[1, 0.5], top=None)
    assert (made.weights, made.top) == ((1.0, 0.5), None)
    for options in ({"weights": ["a"]}, {"weights": 1.0}, {"weights": None}, {"top": 1.5}, {"top": "1"}):
        with pytest.raises(RecipeError, match=r"such as \(\)|such as 3"):
            build("listed", student_taps=TAPS, teacher_taps=TAPS, **options)


@pytest.mark.parametrize(("preset", "name"), [(preset, name) for preset in PRESETS for name in PRESETS[preset]])
def test_every_preset_can_be_built_and_outvoted(preset, name):
    build(name, student_taps=TAPS, teacher_taps=TAPS, preset=preset)
    assert PRESETS[preset][name].weight > 0
    kd = build("kd", student_taps=TAPS, teacher_taps=TAPS, preset=preset, temperature=7.0)
    assert (kd.temperature, kd.align) == (7.0, "teacher")


@pytest.mark.parametrize(
    "case", ["kd_seed", "kd_seed_nearest", "dkd_seed_corrected", "dist_seed", "cwd_seed", "cwd_seed_nearest"]
)
def test_the_preset_gives_the_published_value(distiller_cases, case):
    inputs, name = distiller_cases.inputs(case), case.partition("_")[0]
    distiller = build(name, student_taps=TAPS, teacher_taps=TAPS, preset="mmseg-kd")
    student, teacher = (Segmentation(inputs[whose], {}) for whose in ("student", "teacher"))
    losses = distiller(student, teacher, inputs.get("labels"))
    distiller_cases.check(case, inputs, PRESETS["mmseg-kd"][name].weight * torch.stack([*losses.values()]).sum())


def test_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match="did you mean mmseg-kd"):
        build("kd", student_taps=TAPS, teacher_taps=TAPS, preset="mmseg")
    with pytest.raises(RecipeError, match="the preset mmseg-kd has no such distiller"):
        build("cta", student_taps=TAPS, teacher_taps=TAPS, preset="mmseg-kd")


def test_an_integer_will_do_for_a_temperature():
    assert build("kd", student_taps=TAPS, teacher_taps=TAPS, temperature=4).temperature == 4
