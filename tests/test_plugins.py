"""Installed packages bring segmentors and distillers by name; recipes name them like ours, and cannot name code."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from preceptor import plugins
from preceptor.distillers import zoo as distillers
from preceptor.errors import RecipeError
from preceptor.segmentors import zoo
from preceptor.segmentors.unguided import Unguided


def build_small(in_channels=1, classes=2, size="base", *, width: int = 8):
    """A segmentor of somebody else's."""
    return Unguided(in_channels, classes, widths=[width] * 4, depths=[1] * 4)


def install(monkeypatch, *points, group=plugins.SEGMENTORS):
    """As if installed packages had these entry points: (name, value) of the group."""
    every = EntryPoints(EntryPoint(name, value, group) for name, value in points)
    monkeypatch.setattr(plugins, "entry_points", lambda **wanted: every.select(**wanted))


@pytest.fixture
def here(monkeypatch):
    """The builder above, as an entry point finds it."""
    monkeypatch.setattr(zoo, "build_small", build_small, raising=False)
    return "preceptor.segmentors.zoo:build_small"


def test_segmentor_of_a_package_is_built_by_its_name(monkeypatch, here):
    install(monkeypatch, ("theirs", here))
    assert zoo.options("theirs") == {"width": 8}
    network = zoo.build("theirs", in_channels=3, classes=4, width=4)
    assert (network.in_channels, network.classes) == (3, 4)
    assert ("theirs", "of an installed package") in zoo.describe()
    with pytest.raises(RecipeError, match="did you mean width"):
        zoo.build("theirs", in_channels=3, classes=4, widt=4)


def test_our_own_names_cannot_be_taken(monkeypatch, here):
    install(monkeypatch, ("unguided", here))
    assert "widths" in zoo.options("unguided")


def test_nothing_is_imported_before_it_is_named(monkeypatch):
    install(monkeypatch, ("broken", "no.such.module:build"))
    assert plugins.names(plugins.SEGMENTORS) == ["broken"]
    assert zoo.options("unguided")
    with pytest.raises(RecipeError, match=r"cannot be imported[\s\S]*no\.such\.module[\s\S]*reinstall"):
        zoo.options("broken")


def test_a_name_of_two_packages_is_refused(monkeypatch, here):
    install(monkeypatch, ("theirs", here), ("theirs", "other.package:build"))
    with pytest.raises(RecipeError, match=r"several installed packages[\s\S]*other\.package"):
        zoo.options("theirs")


def test_misspelt_name_of_a_package_is_met_with_the_nearest(monkeypatch, here):
    install(monkeypatch, ("theirs", here))
    with pytest.raises(RecipeError, match="did you mean theirs"):
        zoo.options("thiers")
    assert plugins.load(plugins.DISTILLERS, "theirs") is None


def test_distiller_of_a_package_is_built_by_its_name(monkeypatch):
    install(monkeypatch, ("theirs", "preceptor.distillers.logits:PixelKL"), group=plugins.DISTILLERS)
    made = distillers.build("theirs", student_taps=(), teacher_taps=(), temperature=2)
    assert type(made) is distillers.DISTILLERS["kd"]
    assert ("theirs", "of an installed package") in distillers.describe()
    with pytest.raises(RecipeError, match="did you mean theirs"):
        distillers.build("thiers", student_taps=(), teacher_taps=())


@pytest.mark.parametrize("name", ["preceptor.segmentors.unguided:Unguided", "os:system", "../theirs"])
def test_import_paths_are_no_names(monkeypatch, here, name):
    install(monkeypatch, ("theirs", here))
    with pytest.raises(RecipeError, match="no such segmentor"):
        zoo.build(name, in_channels=1, classes=2)


def test_segmentor_added_from_python_is_described_by_its_docstring(monkeypatch):
    monkeypatch.setitem(zoo.SEGMENTORS, "mine", build_small)
    assert ("mine", "A segmentor of somebody else's.") in zoo.describe()
    assert zoo.build("mine", in_channels=1, classes=2).classes == 2
