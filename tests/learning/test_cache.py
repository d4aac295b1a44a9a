"""Kept frozen features: training from them equals training without, they are computed once, and damage is found."""

import copy
import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from preceptor.data.augmentation import Draw, draw_variant, variant_at
from preceptor.data.loading import TrainingLoader
from preceptor.errors import RecipeError, StorageError, TrainingError
from preceptor.learning.cache import CachedMaps, FeatureStore, fill, keys_of, variants_of
from preceptor.pipeline import Pipeline, run
from preceptor.recipe import Recipe, validate_recipe
from preceptor.recipe_data import AugmentRecipe
from preceptor.segmentors.diffusion import SHAPES, DiffusionFeatures, diffusion_unet, write_diffusion
from preceptor.segmentors.textdiff import TextDiffFree

AUGMENT = {"variants": 3, "rotate": 15.0, "flip_vertical": 0.5, "noise": 0.1}


@pytest.fixture
def textdiff_recipe(small_recipe: dict) -> dict:
    """A tiny TextDiff teaches a TextDiff without text: both read the same frozen features."""
    data = {**small_recipe["data"], "normalize": "symmetric"}
    part = {"size": "tiny", "options": {"width": 16, "heads": 2, "head_width": 8, "decoder_widths": [8, 8]}}
    return {
        **small_recipe,
        "data": data,
        "teacher": {"segmentor": {"name": "textdiff", **part}, "privilege": "report"},
        "student": {"name": "textdiff_free", **part},
        "distill": [{"name": "kd", "weight": 1.0}],
        "augment": AUGMENT,
    }


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of images that the frozen U-Net is shown."""
    seen: list[int] = []
    original = DiffusionFeatures.forward

    def counted(self: DiffusionFeatures, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append(len(image))
        return original(self, image)

    monkeypatch.setattr(DiffusionFeatures, "forward", counted)
    return seen


def losses(folder: Path) -> list[float]:
    with open(folder / "steps.csv", encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def stored(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "features").rglob("*.safetensors"))


def test_training_from_the_cache_equals_training_without(textdiff_recipe, tmp_path, forwards) -> None:
    plain = validate_recipe(textdiff_recipe, changes=["cache.enabled=false"])
    run(plain, tmp_path / "plain" / "run", only=["teacher", "student"])
    assert not stored(tmp_path / "plain")
    forwards.clear()
    run(validate_recipe(textdiff_recipe), tmp_path / "kept" / "run", only=["teacher", "student"])
    assert sum(forwards) == 8 * 3 + 2  # training cases and variants, and validation cases, for both arms and all epochs
    for arm in ("teacher", "student"):
        expected, found = (losses(tmp_path / name / "run" / arm / "seed-0") for name in ("plain", "kept"))
        assert found == pytest.approx(expected, rel=1e-3)
        assert found != expected  # half precision shows, so the features were read


def test_seeds_ablations_and_other_runs_share_the_features(textdiff_recipe, tmp_path, forwards) -> None:
    run(validate_recipe(textdiff_recipe), tmp_path / "one", only=["control"])
    files = stored(tmp_path)
    forwards.clear()
    changed = validate_recipe(textdiff_recipe, changes=["seeds=[1]", "student.options.independent=true"])
    run(changed, tmp_path / "two", only=["control"])
    assert not forwards
    assert stored(tmp_path) == files
    more = validate_recipe(textdiff_recipe, changes=["seeds=[2]", "augment.variants=4"])
    run(more, tmp_path / "three", only=["control"])
    assert sum(forwards) == 8  # of each training case the one variant that is new


def test_judging_with_kept_features_is_judging_without(textdiff_recipe, tmp_path, forwards, monkeypatch) -> None:
    monkeypatch.setattr("preceptor.judging.measure_cost", lambda *_: {})
    recipe = validate_recipe(textdiff_recipe)
    run(recipe, tmp_path / "run", only=["teacher"])
    forwards.clear()
    run(recipe, tmp_path / "run", only=["teacher", "evaluate"])
    assert sum(forwards) == 6  # test cases, once for the reports and every probe
    place = tmp_path / "run" / "teacher" / "seed-0"
    tables = {name: (place / name).read_bytes() for name in ("cases.csv", "probes.csv")}
    (place / "judged.json").unlink()
    run(
        validate_recipe(recipe.plain(), changes=["cache.enabled=false"]), tmp_path / "run", only=["teacher", "evaluate"]
    )
    assert sum(forwards) > 12
    assert {name: (place / name).read_bytes() for name in tables} == tables


def test_arms_without_a_frozen_part_keep_nothing(small_recipe, tmp_path) -> None:
    run(validate_recipe(small_recipe, changes=["cache.enabled=true"]), tmp_path / "run", only=["control"])
    assert not (tmp_path / "cache" / "features").exists()


def test_endless_augmentation_keeps_validation_cases_alone_unless_that_is_refused(textdiff_recipe, tmp_path) -> None:
    recipe = validate_recipe(textdiff_recipe, changes=["augment.variants=0"])
    job = Pipeline(recipe, tmp_path / "run").job("control", 0)
    assert not job.kept
    assert job.kept_validation
    with pytest.raises(RecipeError, match=r"never repeats[\s\S]*set augment\.variants"):
        Pipeline(validate_recipe(recipe.plain(), changes=["cache.enabled=true"]), tmp_path / "run").job("control", 0)


def test_a_cache_over_the_limit_is_refused_before_anything_is_computed(textdiff_recipe, tmp_path, forwards) -> None:
    small = validate_recipe(textdiff_recipe, changes=["cache.limit_gb=0.001"])
    assert not Pipeline(small, tmp_path / "run").job("control", 0).kept
    strict = validate_recipe(small.plain(), changes=["cache.enabled=true"])
    with pytest.raises(StorageError, match=r"8 train cases x 3 variants, 26 different, 0\.\d+ GB[\s\S]*fewer augment"):
        Pipeline(strict, tmp_path / "run").job("control", 0)
    assert not forwards
    assert not stored(tmp_path)


def test_the_size_is_told_before_it_is_computed_and_is_that_of_the_files(textdiff_recipe, tmp_path) -> None:
    pipeline, told = Pipeline(validate_recipe(textdiff_recipe), tmp_path / "run"), []
    pipeline.progress.note = lambda text: told.append((text, len(stored(tmp_path))))  # type: ignore[method-assign]
    pipeline.job("control", 0)
    ((text, files),) = told
    assert files == 0
    assert "2 val cases x 1 variants and 8 train cases x 3 variants, 26 different" in text
    size = sum(path.stat().st_size for path in stored(tmp_path)) / 1e9
    assert float(text.split(" GB")[0].split()[-1]) == pytest.approx(size, abs=0.005)


def parts(recipe: Recipe, folder: Path) -> tuple:
    """(network, shelf, draws, keys, store) of the control's training."""
    shelf = Pipeline(recipe, folder / "run").shelf("train")
    network = TextDiffFree(1, 2, "tiny").eval()
    draws = variants_of(shelf, recipe.augment)
    store = FeatureStore(folder / "features", network.frozen_shapes(recipe.data.size))
    return network, shelf, draws, keys_of(shelf, draws), store


def filled(recipe: Recipe, folder: Path) -> tuple:
    found = parts(recipe, folder)
    network, shelf, draws, keys, store = found
    fill(store, network, shelf, draws, keys, torch.device("cpu"), lambda done, total: None)
    return found


def test_what_a_process_has_checked_is_checked_again_by_another(tmp_path) -> None:
    store = FeatureStore(tmp_path, ((1, 1, 1),))
    store.write("key", [torch.ones(1, 1, 1)], "case")
    store.read("key")
    other = copy.copy(store)  # by way of the state that a pickle holds
    assert (other, store.checked, other.checked) == (store, {"key"}, set())


def test_loaders_give_the_maps_of_the_very_images_they_show(textdiff_recipe, tmp_path) -> None:
    recipe = validate_recipe(textdiff_recipe)
    network, shelf, _, keys, store = filled(recipe, tmp_path)
    kept = CachedMaps(store, keys)
    loader = TrainingLoader(shelf, {}, recipe.augment, 3, seed=5, frozen={"frozen": kept})
    for batch in loader:
        for found, expected in zip(batch.frozen["frozen"], network.frozen_maps(batch.image), strict=True):
            assert found.dtype == torch.float16
            torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3)


KILLED = """
import os, pathlib, signal, sys
from preceptor.pipeline import Pipeline
from preceptor.recipe import read_recipe
done, replace = [], pathlib.Path.replace
def last(path, target):
    if target.parent.parent.name == "features":
        done.append(target)
    if len(done) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
pathlib.Path.replace = last
Pipeline(read_recipe(sys.argv[1]), pathlib.Path(sys.argv[2])).job("control", 0)
"""


def test_a_killed_filling_goes_on_with_what_is_whole(textdiff_recipe, tmp_path, forwards) -> None:
    recipe = validate_recipe(textdiff_recipe)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "recipe.yaml"), str(tmp_path / "run")]
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == -signal.SIGKILL
    assert len(stored(tmp_path)) == 6
    assert list((tmp_path / "cache" / "features").rglob(".*.partial"))  # the half-written one
    Pipeline(recipe, tmp_path / "run").job("control", 0)
    assert sum(forwards) == 26 - 6
    assert len(stored(tmp_path)) == 26
    assert not list((tmp_path / "cache" / "features").rglob(".*.partial"))


@pytest.mark.parametrize("change", ["byte", "cut", "gone"])
def test_a_damaged_file_is_found_when_it_is_read_and_computed_anew(textdiff_recipe, tmp_path, forwards, change) -> None:
    recipe = validate_recipe(textdiff_recipe)
    network, shelf, draws, keys, store = filled(recipe, tmp_path)
    path, whole = store.path(keys[2][1]), store.path(keys[2][1]).read_bytes()
    if change == "byte":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif change == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.unlink()
    fresh = FeatureStore(store.folder, store.shapes)
    with pytest.raises(StorageError, match="give the same command again"):
        CachedMaps(fresh, keys).batch([2], [1])
    assert not path.exists()
    forwards.clear()
    fill(fresh, network, shelf, draws, keys, torch.device("cpu"), lambda done, total: None)
    assert sum(forwards) == 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize("value", [7e4, float("nan")])
def test_what_half_precision_cannot_hold_is_refused_with_the_case(tmp_path, value) -> None:
    store = FeatureStore(tmp_path, ((1, 1, 1),))
    with pytest.raises(TrainingError, match=r"case 7: [\s\S]*cache\.enabled=false"):
        store.write("key", [torch.full((1, 1, 1), value)], "case 7")
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_identity_follows_everything_that_the_maps_depend_on(tmp_path) -> None:
    torch.manual_seed(1)
    write_diffusion(tmp_path / "a", SHAPES["tiny"], diffusion_unet(SHAPES["tiny"]).state_dict())
    write_diffusion(tmp_path / "b", SHAPES["tiny"], diffusion_unet(SHAPES["tiny"]).state_dict())
    changes = [
        {},
        {"diffusion": str(tmp_path / "a")},
        {"diffusion": str(tmp_path / "b")},
        {"blocks": [2, 3]},
        {"steps": [50, 150]},
        {"steps": [150, 50, 250]},
        {"noise_seed": 41},
        {"bgr": True},
    ]
    found = [TextDiffFree(3, 2, "tiny", **change).frozen_identity() for change in changes]
    assert len(set(found)) == len(changes)
    assert TextDiffFree(3, 5, "tiny", width=32).frozen_identity() == found[0]


def test_a_key_follows_the_image_and_what_is_done_to_it(textdiff_recipe, tmp_path) -> None:
    shelf = Pipeline(validate_recipe(textdiff_recipe), tmp_path / "run").shelf("train")
    draws = [
        Draw(),
        Draw(angle=1.0),
        Draw(noise=0.1, noise_seed=1),
        Draw(noise=0.1, noise_seed=2),
        Draw(shift=(0, 1.0)),
    ]
    keys = keys_of(shelf, [draws] * len(shelf))
    assert len({key for own in keys for key in own}) == len(shelf) * len(draws)
    same = [Draw(noise_seed=9), Draw(angle=-0.0), Draw(shift=(-0.0, 0.0))]
    assert all(set(own) == {known[0]} for own, known in zip(keys_of(shelf, [same] * len(shelf)), keys, strict=True))


def test_a_seed_gives_the_order_of_variants_and_nothing_else() -> None:
    augment = AugmentRecipe(**{**AUGMENT, "variants": 4})
    for seed in (0, 1):
        for case in range(3):
            turns = [[variant_at(4, seed, epoch, case) for epoch in range(start, start + 4)] for start in (0, 4, 8)]
            assert all(sorted(turn) == [0, 1, 2, 3] for turn in turns)
    orders = {tuple(variant_at(4, seed, epoch, 0) for epoch in range(8)) for seed in range(5)}
    assert len(orders) == 5
    assert len({draw_variant(augment, variant, case) for variant in range(4) for case in range(3)}) == 12
