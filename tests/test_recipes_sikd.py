"""The recipe of SIKD holds the published values, and runs on a folder of ACDC's layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from preceptor.data.case import Case
from preceptor.data.layouts import read_cases
from preceptor.data.masks import resize_mask
from preceptor.data.readers import read_image, read_mask
from preceptor.delivery.package import Package, load_package
from preceptor.delivery.predict import predict_files, resize
from preceptor.errors import UserError
from preceptor.judging import Judge, evaluate_package
from preceptor.learning.arm import check_arms
from preceptor.learning.class_mean import class_means
from preceptor.pipeline import run
from preceptor.recipe import read_recipe
from preceptor.segmentors.base import probabilities

from .published_folders import acdc

SMALL = [
    "data.image_size=32",
    "data.split.rule=random",
    "data.split.validation=0.3",
    "data.split.test=0.3",
    "teacher.segmentor.size=tiny",
    "student.size=tiny",
    "training.batch_size=4",
    "training.epochs=1",
    "training.min_epochs=1",
    "evaluate.bootstrap=100",
    "seeds=[0]",
]


def test_the_recipe_holds_the_published_values() -> None:
    recipe = read_recipe("sikd/acdc")
    check_arms(recipe)
    assert recipe.teacher is not None
    assert (recipe.teacher.segmentor.name, recipe.teacher.segmentor.options) == ("plain_unet", {"skips": False})
    assert (recipe.teacher.privilege, recipe.student.name, recipe.student.options) == ("class_mean", "plain_unet", {})
    (hint,) = recipe.distill
    assert (hint.name, hint.weight, hint.warmup, hint.taps) == ("fitnet", 2.0, 0.0, {"decoder1": "decoder1"})
    for arm in recipe.arms:
        settings = recipe.training_of(arm)
        assert (settings.optimizer, settings.lr, settings.weight_decay, settings.loss) == ("adam", 1e-3, 0.0, "ce")
        assert (settings.schedule, settings.milestones, settings.factor) == ("step", [60, 100, 150, 180], 0.5)
        assert (settings.epochs, settings.batch_size, settings.clip, settings.patience) == (200, 20, 0.0, 0)
    assert (recipe.data.size, recipe.data.normalize, recipe.data.channels) == ((256, 256), "volume_percentile", 1)
    named = recipe.data.split.named
    assert (recipe.data.split.rule, sorted(named), [len(set(named[part])) for part in ("val", "test")]) == (
        "named",
        ["test", "val"],
        [15, 15],
    )
    assert not set(named["val"]) & set(named["test"])
    assert (recipe.augment.shift, recipe.augment.rotate, recipe.augment.rotate_share) == (0.125, 180, 0.5)


def test_sikd_runs_and_its_teacher_answers_no_plain_image(tmp_path: Path) -> None:
    root = acdc(tmp_path / "data") / "database"
    recipe = read_recipe("sikd/acdc", [*SMALL, f"data.root={json.dumps(str(root))}"])
    outcome = run(recipe, tmp_path / "run")
    assert outcome.summary is not None
    assert {arm: facts["needs"] for arm, facts in outcome.summary["arms"].items()} == {
        "teacher": "class_mean",
        "control": "none",
        "student": "none",
    }
    assert outcome.report is not None
    page = outcome.report.read_text(encoding="utf-8")
    assert "painted from the reference" in page
    assert "image and mask" in page

    cases = read_cases(recipe.data).cases
    teacher = load_package(tmp_path / "run" / "teacher" / "seed-0" / "package")
    with pytest.raises(UserError, match=r"needs more than an image[\s\S]*class_mean[\s\S]*package of a student"):
        predict_files(teacher, [cases[0].image], tmp_path / "out")
    assert "dice" in evaluate_package(teacher, recipe.data, cases[:4], tmp_path / "judged")  # the masks are there
    judged_from_its_mask(teacher, Judge(recipe.data, recipe.evaluate), cases[0])
    student = load_package(tmp_path / "run" / "package")
    assert predict_files(student, [cases[0].image], tmp_path / "out").done


def judged_from_its_mask(package: Package, judge: Judge, case: Case) -> None:
    """Fail unless the teacher is judged on the image that its own mask paints at the network's size."""
    assert case.mask is not None
    picture, stored = read_image(case.image, case.slice), read_mask(case.mask, case.slice).pixels
    small = resize_mask(stored, package.preprocessing.size, judge.data.labels, "exact", case.mask)
    image = package.preprocessing.apply(picture)[None]
    with torch.no_grad():
        painted = package.network(class_means(image, torch.from_numpy(small)[None]))
    expected = resize(probabilities(painted.logits)[0], picture.geometry.shape).numpy()
    found = judge.answer(package, case, picture, stored, None, None)
    np.testing.assert_allclose(found, expected, atol=1e-5)
