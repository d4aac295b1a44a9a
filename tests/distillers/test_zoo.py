"""Names and options of distillers are checked, and every name has one line that says what it does."""

import pytest

from preceptor.distillers.zoo import DISTILLERS, build, describe
from preceptor.errors import RecipeError
from preceptor.segmentors.base import Tap

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


def test_an_integer_will_do_for_a_temperature():
    assert build("kd", student_taps=TAPS, teacher_taps=TAPS, temperature=4).temperature == 4
