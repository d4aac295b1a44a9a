"""A folder and its options become the sections of a recipe; nothing that is given is left out silently."""

import pytest

from preceptor.errors import RecipeError
from preceptor.folder_recipes import data_of, embedding_recipe


def test_a_folder_takes_its_options_and_changes(tmp_path):
    labels = ["background=0", "lesion=255", "device=#00ff00"]
    data, reports = data_of(
        str(tmp_path),
        layout="lvit",
        labels=labels,
        groups="waived",
        changes=["data.mask_rule=exact", "data.channels=1"],
    )
    assert (data.root, data.layout, data.split.groups, data.channels) == (str(tmp_path), "lvit", "waived", 1)
    assert data.labels == {"background": 0, "lesion": 255, "device": "#00ff00"}
    assert reports is not None


def test_a_recipe_gives_its_own_sections():
    data, reports = data_of("textfreekd/qata", changes=["data.root=QaTa"])
    assert (data.root, data.mask_rule, reports.length) == ("QaTa", "eq255", 24)
    assert data_of("demo", changes=["teacher=null", "distill=[]"])[1] is None


@pytest.mark.parametrize("label", ["lesion", "=255", "lesion="])
def test_a_label_without_name_or_value_is_refused(label, tmp_path):
    with pytest.raises(RecipeError, match="not of the form name=value"):
        data_of(str(tmp_path), labels=[label])


def test_misspelt_changes_of_a_folder_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="did you mean mask_rule"):
        data_of(str(tmp_path), changes=["data.maskrule=exact"])
    with pytest.raises(RecipeError, match=r"data\.layout"):
        data_of(str(tmp_path), layout="nonesuch")


def test_the_reports_of_a_folder_are_embedded_with_their_mirrored_forms(tmp_path):
    recipe = embedding_recipe(str(tmp_path), ["reports.length=9"])
    assert recipe.reports.length == 9
    assert (recipe.augment.flip_horizontal, recipe.augment.flip_vertical) == (0.5, 0.5)
    assert embedding_recipe("demo", ["data.root=x"]).data.root == "x"


def test_what_is_neither_folder_nor_recipe_is_said_to_be_neither(tmp_path):
    for make in (data_of, embedding_recipe):
        with pytest.raises(RecipeError, match="neither a data folder, nor a recipe file, nor a shipped recipe"):
            make(str(tmp_path / "absent"))
