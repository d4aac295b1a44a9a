"""The training loop: schedule, steps that are not finite, accumulation, early stopping."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from preceptor.data.case import Case
from preceptor.data.loading import EvaluationLoader, TrainingLoader
from preceptor.data.shelf import Shelf, build_shelf
from preceptor.data.transforms import Preprocessing
from preceptor.errors import TrainingError
from preceptor.learning.losses import segmentation_loss
from preceptor.learning.optimization import learning_rate
from preceptor.learning.privilege import none
from preceptor.learning.tasks import Supervised
from preceptor.learning.training import Training, make_fabric
from preceptor.progress import Progress
from preceptor.recipe import TrainingRecipe
from preceptor.recipe_data import AugmentRecipe, DataRecipe
from preceptor.segmentors import zoo

SETTINGS = {"epochs": 2, "min_epochs": 1, "batch_size": 4, "precision": "float32", "accelerator": "cpu", "patience": 0}
PLAIN = AugmentRecipe(zoom=[0.0, 1.0, 1.0])


@pytest.fixture
def shelf(small_data: Path, tmp_path: Path) -> Shelf:
    data = DataRecipe(labels={"background": 0, "square": 255}, image_size=32, channels=1)
    images = sorted((small_data / "images").iterdir())[:8]
    cases = [Case(path.stem, path, small_data / "masks" / path.name, "train") for path in images]
    return build_shelf(cases, Preprocessing.from_recipe(data), data.labels, "exact", tmp_path / "cache")


def make(shelf: Shelf, folder: Path, **changes: object) -> Training:
    settings = TrainingRecipe.model_validate({**SETTINGS, **changes})
    torch.manual_seed(0)
    network = zoo.build("unguided", in_channels=1, classes=2, size="tiny")
    task = Supervised(network, none, segmentation_loss("dice_ce"))
    train = TrainingLoader(shelf, {}, PLAIN, settings.batch_size, 0)
    validation = EvaluationLoader(shelf, {}, 4)
    return Training(make_fabric(settings), task, train, validation, settings, folder, 0, Progress(), "control")


def steps(folder: Path) -> list[dict[str, str]]:
    with open(folder / "steps.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_cosine_goes_from_lr_to_min_lr_and_stays_there() -> None:
    settings = TrainingRecipe(epochs=300, schedule_epochs=200, lr=3e-4, min_lr=1e-6)
    assert learning_rate(settings, 0, 0.0) == 3e-4
    assert learning_rate(settings, 100, 0.0) == pytest.approx((3e-4 + 1e-6) / 2)
    assert learning_rate(settings, 200, 0.0) == learning_rate(settings, 299, 0.0) == 1e-6


def test_steps_halve_the_rate_from_each_milestone_on() -> None:
    settings = TrainingRecipe(epochs=200, lr=1e-3, schedule="step", milestones=[60, 100, 150, 180], factor=0.5)
    found = [learning_rate(settings, epoch, 0.9) for epoch in (0, 59, 60, 99, 100, 149, 150, 179, 180, 199)]
    rates = (1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5)
    assert found == pytest.approx([rate for rate in rates for _ in range(2)])


def test_warm_up_is_linear_within_epochs() -> None:
    settings = TrainingRecipe(epochs=10, lr=1.0, warmup_epochs=2.0)
    assert learning_rate(settings, 0, 0.5) == 0.25
    assert learning_rate(settings, 1, 0.5) == 0.75


def test_training_learns_and_leaves_its_tables(shelf: Shelf, tmp_path: Path) -> None:
    position = make(shelf, tmp_path / "arm", epochs=6, lr=2e-3).run()
    history = position.history
    assert history[-1]["train_loss"] < 0.9 * history[0]["train_loss"]
    assert len(steps(tmp_path / "arm")) == position.step == 12
    assert json.loads((tmp_path / "arm" / "done.json").read_text())["epochs"] == 6
    assert (tmp_path / "arm" / "best.safetensors").exists()


def test_a_seed_gives_the_same_run(shelf: Shelf, tmp_path: Path) -> None:
    for name in "ab":
        make(shelf, tmp_path / name).run()
    assert steps(tmp_path / "a") == steps(tmp_path / "b")


def test_accumulated_batches_take_the_step_of_one_large_batch(shelf: Shelf, tmp_path: Path) -> None:
    """Up to batch statistics, which a batch norm in train mode takes from each part."""
    whole, parts = make(shelf, tmp_path / "a", batch_size=8), make(shelf, tmp_path / "b", batch_size=4, accumulate=2)
    for training in (whole, parts):
        training.bare.network.eval()
        training.task.train = lambda mode=True: None  # type: ignore[method-assign]
        training.run()
    for ours, theirs in zip(whole.bare.parameters(), parts.bare.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)


def test_a_step_that_is_not_finite_is_left_out_and_counted(shelf: Shelf, tmp_path: Path) -> None:
    training = make(shelf, tmp_path / "arm")
    loss, calls = training.bare.loss, []

    def sometimes_nan(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return loss(logits, mask) * (math.nan if len(calls) == 2 else 1.0)

    training.bare.loss = sometimes_nan
    position = training.run()
    assert position.skipped == 1
    assert [row["skipped"] for row in steps(tmp_path / "arm")] == ["0", "1", "0", "0"]
    assert all(torch.isfinite(p).all() for p in training.bare.parameters())


def test_losses_that_stay_non_finite_stop_the_run_and_name_the_cases(shelf: Shelf, tmp_path: Path) -> None:
    training = make(shelf, tmp_path / "arm", bad_steps=3)
    loss = training.bare.loss
    training.bare.loss = lambda logits, mask: loss(logits, mask) * math.nan
    with pytest.raises(TrainingError, match="not finite in 3 steps in a row"):
        training.run()
    dump = json.loads((tmp_path / "arm" / "bad_batch.json").read_text())
    assert set(dump["cases"]) <= {case.name for case in shelf.cases}


def test_early_stopping_waits_for_patience_and_keeps_the_best(shelf: Shelf, tmp_path: Path) -> None:
    training = make(shelf, tmp_path / "arm", epochs=50, patience=3, lr=1e-12, min_lr=0.0)
    position = training.run()
    assert position.epoch == position.best_epoch + 1 + 3
    assert position.epoch < 50


@pytest.mark.parametrize(("scores", "ended"), [((1, 2, 3, 4), 16), ((1, 2, 2, 4), 12), ((2, 1, 1, 1), 8)])
def test_patience_waits_for_a_validation(shelf: Shelf, tmp_path: Path, scores: tuple[int, ...], ended: int) -> None:
    training = make(shelf, tmp_path / "arm", epochs=16, patience=3, validate_every=4, lr=1e-12, min_lr=0.0)
    given = iter(scores)
    training.validation = lambda network: {"dice_pooled": float(next(given))}  # type: ignore[assignment]
    assert training.run().epoch == ended


def test_too_little_memory_names_a_smaller_setting(shelf: Shelf, tmp_path: Path) -> None:
    training = make(shelf, tmp_path / "arm")

    def burst(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    training.bare.loss = burst
    with pytest.raises(TrainingError, match=r"training\.batch_size=2 and training\.accumulate=2"):
        training.run()
