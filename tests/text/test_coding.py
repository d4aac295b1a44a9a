"""Attributes as a network is shown them: from sentences, from notes, from a table's facts, and wrong ones."""

import pytest
import torch

from preceptor.recipe_data import ReportRecipe
from preceptor.segmentors.base import Condition
from preceptor.text.attributes import ATTRIBUTES, coded
from preceptor.text.coding import CODINGS, AttributeReader, wrong_attributes

SENTENCE = "Unilateral pulmonary infection, one infected area, upper left lung."


def test_recipes_take_exactly_the_codings_that_there_are() -> None:
    assert set(ReportRecipe.model_fields["coding"].annotation.__args__) == set(CODINGS)


@pytest.mark.parametrize("coding", CODINGS)
def test_texts_become_the_condition_of_a_batch(coding: str) -> None:
    reader = AttributeReader(coding)
    found = reader.batch([SENTENCE, "Nuclei.", "", SENTENCE])
    assert (found.shape, found.dtype) == ((4, 8), torch.float32)
    assert found[0].tolist() == found[3].tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert found[1:3].isnan().all()
    assert reader.batch([]).shape == (0, 8)
    assert Condition("attributes", reader.length, reader.width) == Condition("attributes", 1, 8)


@pytest.mark.parametrize("coding", CODINGS)
def test_facts_of_a_table_are_read_by_every_coding(coding: str) -> None:
    (row,) = AttributeReader(coding).batch([coded({"number": 3, "rlower": 0})])
    known = dict(zip(ATTRIBUTES, row.tolist(), strict=True))
    assert (known["number"], known["rlower"]) == (3, 0)
    assert int(row.isnan().sum()) == 6


def test_wrong_attributes_are_unknown_of_another_case_or_on_the_other_side() -> None:
    texts = [SENTENCE, coded({"left upper": 1, "lupper": 1, "number": 2}), "words"]
    wrong = wrong_attributes(texts, 0)
    assert set(wrong) == {"unknown", "shuffled", "wrong_side"}
    reader = AttributeReader()
    assert reader.batch(wrong["unknown"]).isnan().all()
    assert sorted(wrong["shuffled"]) == sorted(texts)
    assert wrong["shuffled"] != texts
    assert reader.batch(wrong["wrong_side"])[:2, ATTRIBUTES.index("rupper")].tolist() == [1, 1]
