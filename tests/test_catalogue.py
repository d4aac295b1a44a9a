"""The catalogue leaves out nothing that a recipe may name, and names nothing that it may not."""

from typing import get_args

import pytest

from preceptor.catalogue import Entry, catalogue, choices, render
from preceptor.distillers.zoo import DISTILLERS, PRESETS
from preceptor.evaluation.scores import METRICS
from preceptor.learning.losses import LOSSES
from preceptor.learning.privilege import PRIVILEGES
from preceptor.matrix import shipped_matrices
from preceptor.recipe import Recipe, TrainingRecipe, shipped_recipes
from preceptor.recipe_data import AugmentRecipe, DataRecipe, SplitRecipe
from preceptor.recipe_diffusion import shipped_pretrainings
from preceptor.segmentors.zoo import SEGMENTORS
from preceptor.weights import ARCHITECTURES


@pytest.fixture(scope="module")
def sections():
    return catalogue()


def words(part, name):
    return list(get_args(part.model_fields[name].annotation))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("segmentors", list(SEGMENTORS)),
        ("distillers", list(DISTILLERS)),
        ("presets", list(PRESETS)),
        ("privileges", list(PRIVILEGES)),
        ("losses", list(LOSSES)),
        ("losses", words(TrainingRecipe, "loss")),
        ("layouts", words(DataRecipe, "layout")),
        ("mask-rules", words(DataRecipe, "mask_rule")),
        ("split-rules", words(SplitRecipe, "rule")),
        ("augmentations", list(AugmentRecipe.model_fields)),
        ("metrics", list(METRICS)),
        ("recipes", list(shipped_recipes())),
        ("matrices", list(shipped_matrices())),
        ("pretrainings", list(shipped_pretrainings())),
        ("architectures", [*ARCHITECTURES, "backbone", "diffusion", "text-encoder"]),
    ],
)
def test_a_section_names_exactly_what_there_is(sections, kind, expected):
    assert [entry.name for entry in sections[kind]] == expected


def test_every_entry_has_one_line_and_no_more(sections):
    for title, entries in sections.items():
        for entry in entries:
            assert entry.line.strip(), f"{title}: {entry.name}"
            assert "\n" not in entry.line
            assert not entry.line.endswith(".")


def test_every_word_that_a_recipe_key_takes_is_listed(sections):
    text = render(sections)
    found = dict(choices(Recipe))
    assert {"data.layout", "data.split.rule", "teacher.segmentor.size", "evaluate.splits"} < set(found)
    for key, values in found.items():
        for word in values:
            assert word in text, f"{key}: {word}"


def test_options_stand_with_their_defaults_as_a_recipe_writes_them(sections):
    text = render({"distillers": sections["distillers"], "segmentors": sections["segmentors"]})
    assert "temperature=0.07, official_temperature=false" in text
    assert "variant=textfreekd, widths=null" in text
    assert "pretrained=" not in text
    presets = render({"presets": sections["presets"]})
    assert "kd 10, dkd 5.24288" in presets
    assert "kd.temperature=2.0, kd.reduction=element" in presets


def test_lines_are_wrapped_below_themselves_where_a_terminal_is_narrow():
    entries = [Entry("a", "word " * 20, {"size": 3}), Entry("longer", "short")]
    lines = render({"kind": entries}, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0] == "kind"
    assert lines[1].startswith("  a       word")
    assert lines[2].startswith("          word")
    assert lines[-2:] == ["          options: size=3", "  longer  short"]
    assert len(render({"kind": entries}).splitlines()) == 4
