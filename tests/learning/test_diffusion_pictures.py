"""Which pictures a pre-training learns from, and what becomes of them."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from preceptor.data.case import Case
from preceptor.errors import DataError, RecipeError
from preceptor.learning.diffusion_pictures import PicturePool, decode_pictures, pictures_of
from preceptor.pretraining import shape_of
from preceptor.recipe_data import SplitRecipe
from preceptor.recipe_diffusion import DiffusionRecipe, PictureRecipe, read_diffusion_recipe, shipped_pretrainings


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def grey(height: int, width: int, value: int = 100) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def pool_of(root: Path, side: int, *changes: str) -> PicturePool:
    settings = read_diffusion_recipe(root, ["data.split.validation=0", *changes])
    return decode_pictures(pictures_of(settings.data)[0], settings, side)


def test_pictures_of_a_folder_are_found_below_it_and_a_share_is_held_out(tmp_path) -> None:
    for number in range(10):
        save(tmp_path / f"part{number % 3}" / f"{number}.png", grey(8, 8))
    save(tmp_path / ".thumbnails" / "0.png", grey(2, 2))
    save(tmp_path / "out" / "samples" / "step-000500.png", grey(8, 8))
    train, held_out = pictures_of(PictureRecipe(root=str(tmp_path)), tmp_path / "out")
    assert (len(train), len(held_out)) == (9, 1)
    assert {case.name for case in (*train, *held_out)} == {f"part{n % 3}-{n}.png" for n in range(10)}
    assert pictures_of(PictureRecipe(root=str(tmp_path)), tmp_path / "out") == (train, held_out)


def test_pictures_of_a_patient_are_held_out_together(tmp_path) -> None:
    for number in range(10):
        save(tmp_path / f"p{number // 2}_{number}.png", grey(8, 8))
    data = PictureRecipe(root=str(tmp_path), group_pattern="^(p.)_", split=SplitRecipe(validation=0.2))
    train, held_out = pictures_of(data)
    assert len(held_out) == 2
    assert {case.group for case in held_out}.isdisjoint(case.group for case in train)
    with pytest.raises(DataError, match="no patient is found"):
        pictures_of(data.model_copy(update={"group_pattern": "^(q.)_"}))


def test_of_a_data_set_the_test_cases_are_never_taken(small_data) -> None:
    train, held_out = pictures_of(PictureRecipe(root=str(small_data)))
    assert [case.name for case in train] == [f"c{n:02d}" for n in range(8)]
    assert [case.name for case in held_out] == ["c08", "c09"]


def test_of_a_recipe_come_its_pictures_split_and_scale(small_recipe, tmp_path) -> None:
    from preceptor.recipe import validate_recipe

    # The groups decide which cases a random split tests on.
    data = {"split": {"rule": "random", "validation": 0.25, "test": 0.25}, "group_pattern": "[02468]$|[13579]$"}
    recipe = validate_recipe({**small_recipe, "data": {**small_recipe["data"], **data}})
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    settings = read_diffusion_recipe(path, ["image_size=16"])
    assert (settings.scale, settings.data.channels, settings.image_size) == (32, 1, 16)
    from preceptor.data.layouts import read_cases
    from preceptor.data.splits import assign_splits

    cases = assign_splits(read_cases(recipe.data).cases, recipe.data.split)
    train, held_out = pictures_of(settings.data)
    assert {case.name for case in train} == {case.name for case in cases if case.split == "train"}
    assert {case.name for case in held_out} == {case.name for case in cases if case.split == "val"}
    assert {case.group for case in train} == {case.group for case in cases if case.split == "train"}


def test_a_data_set_without_splits_is_refused_since_its_test_cases_are_not_known(small_data) -> None:
    (small_data / "splits.csv").unlink()
    with pytest.raises(DataError, match="no splits"):
        pictures_of(PictureRecipe(root=str(small_data)))
    train, held_out = pictures_of(PictureRecipe(root=str(small_data / "images")))
    assert len(train) + len(held_out) == 16


@pytest.mark.parametrize(("folder", "told"), [("labelcol", "masks lie among"), ("Test_Folder", "to test on")])
def test_folders_that_tell_of_masks_or_of_tests_are_refused(tmp_path, folder, told) -> None:
    save(tmp_path / "Train" / "0.png", grey(8, 8))
    save(tmp_path / "Train" / folder / "0.png", grey(8, 8))
    with pytest.raises(DataError, match=told):
        pictures_of(PictureRecipe(root=str(tmp_path)))


def test_empty_and_missing_folders_are_refused(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="no picture in this folder"):
        pictures_of(PictureRecipe(root=str(tmp_path)))
    with pytest.raises(DataError, match="does not exist"):
        pictures_of(PictureRecipe(root=str(tmp_path / "none")))
    with pytest.raises(RecipeError, match="no folder of pictures"):
        pictures_of(PictureRecipe())
    with pytest.raises(RecipeError, match="neither a folder"):
        read_diffusion_recipe(tmp_path / "none")


def test_grey_colour_alpha_and_sixteen_bits_become_three_channels_from_black_to_white(tmp_path) -> None:
    save(tmp_path / "a.png", grey(8, 8, 255))
    save(tmp_path / "b.png", np.dstack([grey(8, 8, value) for value in (255, 0, 51, 7)]))
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "c.png")
    pool = pool_of(tmp_path, 8)
    assert [picture.dtype for picture in pool.pictures] == [np.uint8, np.uint8, np.float16]
    found = pool.crops([0, 1, 2], torch.Generator(), plain=True)
    assert found.shape == (3, 3, 8, 8)
    assert found[:, :, 0, 0].tolist() == [[1, 1, 1], [1, -1, pytest.approx(-0.6)], [1, 1, 1]]
    assert pool_of(tmp_path, 8, "data.channels=1").pictures[1].shape == (1, 8, 8)


def test_values_without_a_range_of_their_own_need_one(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "ct.tif", np.linspace(-1000, 1000, 64).reshape(8, 8).astype(np.float32))
    with pytest.raises(DataError, match=r"data\.clip"):
        pool_of(tmp_path, 8)
    values = pool_of(tmp_path, 8, "data.clip=[-500,500]").pictures[0]
    assert (values.min(), values.max()) == (-1, 1)


def test_slices_of_a_volume_are_pictures_and_are_held_out_together(tmp_path) -> None:
    for name in range(3):
        values = np.random.default_rng(name).integers(-900, 900, (12, 10, 4)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"ct{name}.nii.gz")
    settings = read_diffusion_recipe(tmp_path, ["data.clip=[-500,500]", "data.channels=1", "data.split.validation=0.3"])
    train, held_out = pictures_of(settings.data)
    assert (len(train), len(held_out)) == (8, 4)
    assert len({case.volume for case in held_out}) == 1
    pool = decode_pictures(train, settings, 8)
    assert pool.pictures[0].dtype == np.float16
    assert pool.crops([0, 7], torch.Generator()).shape == (2, 1, 8, 8)


def test_scale_is_the_shortest_side_and_whole_pictures_become_squares(tmp_path) -> None:
    save(tmp_path / "a.png", grey(30, 20))
    assert pool_of(tmp_path, 8).pictures[0].shape == (3, 30, 20)
    assert pool_of(tmp_path, 8, "scale=10").pictures[0].shape == (3, 15, 10)
    assert pool_of(tmp_path, 8, "framing=whole").pictures[0].shape == (3, 8, 8)


def test_a_picture_smaller_than_the_square_is_named_with_what_to_do(tmp_path) -> None:
    save(tmp_path / "a.png", grey(30, 20))
    with pytest.raises(DataError, match=r"a\.png.*smaller than the square[\s\S]*30 x 20[\s\S]*scale=32"):
        pool_of(tmp_path, 32)
    assert pool_of(tmp_path, 32, "scale=32").pictures[0].shape == (3, 48, 32)


def test_every_picture_that_cannot_be_read_is_listed(tmp_path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name, grey(8, 8))
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises(DataError, match=r"2 of 3[\s\S]*a\.png[\s\S]*c\.png"):
        pool_of(tmp_path, 8)
    settings, told = read_diffusion_recipe(tmp_path), []
    decode_pictures([Case("b", tmp_path / "b.png")], settings, 8, expect=told.append)
    assert told == [3 * 8 * 8]


def test_crops_are_a_function_of_the_generator_and_are_mirrored_and_turned_as_asked() -> None:
    picture = np.arange(3 * 6 * 6, dtype=np.uint8).reshape(3, 6, 6)
    pool = PicturePool(("a",), (picture,), 6, (0.5, 0.5), turns=True)
    first, second = (pool.crops([0] * 64, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    plain = pool.crops([0], torch.Generator(), plain=True)[0]
    expected = {
        torch.rot90(form, turn, (1, 2)).numpy().tobytes() for form in (plain, plain.flip(2)) for turn in range(4)
    }
    assert {crop.contiguous().numpy().tobytes() for crop in first} == expected
    places = PicturePool(("a",), (picture,), 4).crops([0] * 64, torch.Generator().manual_seed(1))
    assert len({float(crop[0, 0, 0]) for crop in places}) == 9


def test_a_misspelt_setting_and_an_unknown_layout_are_told_with_the_nearest(tmp_path) -> None:
    with pytest.raises(RecipeError, match="did you mean batch_size"):
        read_diffusion_recipe(tmp_path, ["batchsize=3"])
    with pytest.raises(RecipeError, match="no layout 'folder'"):
        read_diffusion_recipe(tmp_path, ["data.layout=folder"])
    assert DiffusionRecipe.model_validate(read_diffusion_recipe(tmp_path).plain()) == read_diffusion_recipe(tmp_path)


def test_shipped_settings_are_valid_and_show_pictures_as_the_recipe_of_their_name() -> None:
    from preceptor.recipe import read_recipe, shipped_recipes

    for name in shipped_pretrainings():
        settings = read_diffusion_recipe(name)
        shape_of(settings)
        assert settings.description
        assert name in shipped_recipes()
        data = read_recipe(name).data
        assert data.normalize == "symmetric"
        assert (settings.scale, settings.data.resize, settings.data.antialias) == (
            data.size[0],
            data.resize,
            data.antialias,
        )
        assert (settings.data.split, settings.data.clip) == (data.split, data.clip)
