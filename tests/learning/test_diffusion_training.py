"""A diffusion U-Net learns from pictures, goes on exactly where it was stopped, and writes what TextDiff reads."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from preceptor.errors import DataError, Interrupted, RecipeError, TrainingError
from preceptor.learning.checkpoints import load_checkpoint
from preceptor.learning.diffusion_pictures import decode_pictures, pictures_of
from preceptor.learning.diffusion_training import WEIGHTS, DiffusionTraining
from preceptor.pretraining import pretrain_diffusion, shape_of
from preceptor.progress import Progress
from preceptor.recipe_diffusion import DiffusionRecipe, read_diffusion_recipe
from preceptor.segmentors.diffusion import NoiseSchedule, read_diffusion
from preceptor.segmentors.textdiff import TextDiffFree

SMALL = (
    "shape=tiny",
    *("image_size=16", "widths=[16, 16]", "attention=[1]", "head_width=16", "groups=8"),
    *("steps=6", "batch_size=4", "warmup_steps=2", "precision=float32"),
    *("validate_every=3", "validation_crops=8", "sample_every=3", "samples=5", "sample_steps=4"),
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures of 24 x 20 pixels: dark discs on a bright ground, in two folders."""
    noise = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :20]
    for number in range(10):
        folder = tmp_path / "tiles" / ("a" if number % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        top, left = noise.integers(6, 16), noise.integers(6, 14)
        disc = ((rows - top) ** 2 + (columns - left) ** 2 < 30)[..., None]
        picture = np.where(disc, [70, 40, 110], [230, 190, 220]) + noise.normal(0, 4, (24, 20, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "tiles"


def small(source: Path, *changes: str) -> DiffusionRecipe:
    return read_diffusion_recipe(source, [*SMALL, *changes])


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def training(settings: DiffusionRecipe, folder: Path) -> DiffusionTraining:
    """As `pretrain_diffusion` makes it, all pictures learned from."""
    cases = [case for part in pictures_of(settings.data) for case in part]
    pool = decode_pictures(cases, settings, shape_of(settings).image_size)
    return DiffusionTraining(settings, shape_of(settings), pool, None, folder, Progress())


def test_losses_fall_and_the_file_is_one_that_textdiff_reads(pictures, tmp_path) -> None:
    settings = small(pictures, "steps=30", "lr=4e-3", "validate_every=10", "sample_every=0", "ema=0.9")
    found = pretrain_diffusion(settings, tmp_path / "out")
    history = table(tmp_path / "out" / "validation.csv")
    assert [int(row["step"]) for row in history] == [10, 20, 30]
    assert float(history[-1]["train"]) < 0.75 * float(history[0]["train"])
    assert float(history[-1]["held_out"]) < 0.75 * float(history[0]["held_out"])
    assert found.loss["held_out"] == pytest.approx(float(history[-1]["held_out"]))
    shape, _ = read_diffusion(found.weights)
    assert shape == shape_of(settings)
    assert not shape.learn_sigma
    network = TextDiffFree(3, 2, "tiny", diffusion=str(found.weights), steps=[50, 150])
    assert network(torch.zeros(1, 3, 16, 16)).logits.shape == (1, 2, 16, 16)


def test_averaged_weights_are_written_and_differ_from_the_last_ones(pictures, tmp_path) -> None:
    settings = small(pictures, "lr=1e-2", "sample_every=0")
    pretrain_diffusion(settings, tmp_path / "out")
    state, _ = load_checkpoint(tmp_path / "out" / "checkpoints")
    assert state is not None
    _, written = read_diffusion(tmp_path / "out" / WEIGHTS)
    average = dict(zip(state["unet"], state["average"], strict=True))
    assert all(torch.equal(written[name], average[name]) for name in written)
    assert not torch.equal(written["conv_in.weight"], state["unet"]["conv_in.weight"])


def test_average_is_the_moving_one_of_the_weights_so_far(pictures, tmp_path) -> None:
    work = training(small(pictures, "ema=0.5", "lr=1e-2"), tmp_path / "out")
    expected = None
    for step in range(4):
        work._step()
        now = work.unet.conv_in.weight.detach().clone()
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        expected = now if expected is None else decay * expected + (1 - decay) * now
    assert expected is not None
    torch.testing.assert_close(work.average.shadow_params[0], expected)


def test_a_picture_is_noised_as_textdiff_noises_it(pictures, tmp_path) -> None:
    work = training(small(pictures), tmp_path / "out")
    image = torch.rand(2, 3, 16, 16)
    found = work.noised(image, torch.Generator().manual_seed(3), torch.tensor([0, 250]))
    schedule = NoiseSchedule.linear()
    for number, timestep in enumerate((0, 250)):
        expected = schedule.signal[timestep] * image[number] + schedule.noise[timestep] * found.noise[number]
        torch.testing.assert_close(found.pictures[number], expected.float())


class Sends(Progress):
    """Sends this process a signal when a step is done, or ends the training there without a chance to save."""

    def __init__(self, step: int, sign: int | None) -> None:
        self.step, self.sign = step, sign

    def advance(self, amount: int = 1, **values: float | str) -> None:
        self.step -= "loss" in values  # pictures are counted as well
        if self.step == 0 and "loss" in values:
            if self.sign is None:
                raise RuntimeError("cut")
            os.kill(os.getpid(), self.sign)


@pytest.mark.parametrize(
    ("sign", "raised"), [(signal.SIGTERM, Interrupted), (signal.SIGINT, KeyboardInterrupt), (None, RuntimeError)]
)
def test_a_training_that_is_stopped_or_cut_goes_on_with_the_losses_of_the_uninterrupted_one(
    pictures, tmp_path, sign, raised
) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    # Where it is asked to stop, only the asking saves.
    minutes = 0.0 if sign is None else 60.0
    settings = small(pictures, "steps=8", f"checkpoint_minutes={minutes}", "sample_every=0", "dropout=0.1")
    with pytest.raises(raised):
        pretrain_diffusion(settings, cut, Sends(5, sign))
    state, _ = load_checkpoint(cut / "checkpoints")
    assert state is not None
    assert state["position"]["step"] == (4 if sign is None else 5)
    assert not (cut / "done.json").exists()
    pretrain_diffusion(settings, cut)
    pretrain_diffusion(settings, whole)
    assert table(cut / "losses.csv") == table(whole / "losses.csv")
    assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_killed_process_goes_on_with_the_losses_of_the_uninterrupted_one(pictures, tmp_path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it
    settings, cut, whole = tmp_path / "settings.yaml", tmp_path / "cut", tmp_path / "whole"
    settings.write_text(small(pictures, "steps=30", "checkpoint_minutes=0.0", "sample_every=0").to_yaml())
    command = [sys.executable, "-m", "preceptor.cli", "pretrain-diffusion", str(settings), "-q", "--out", str(cut)]
    process = subprocess.Popen(command, env=environment)
    limit = time.monotonic() + 120
    while not ((cut / "losses.csv").exists() and len(table(cut / "losses.csv")) >= 3):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    process.kill()
    process.wait(60)
    assert not (cut / "done.json").exists()
    pretrain_diffusion(read_diffusion_recipe(settings), cut)
    pretrain_diffusion(read_diffusion_recipe(settings), whole)
    assert table(cut / "losses.csv") == table(whole / "losses.csv")


def test_more_steps_may_be_added_and_nothing_else_that_is_learned_may_change(pictures, tmp_path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    pretrain_diffusion(small(pictures, "steps=4"), out)
    before = (out / WEIGHTS).stat().st_mtime_ns
    pretrain_diffusion(small(pictures, "steps=4"), out)
    assert (out / WEIGHTS).stat().st_mtime_ns == before
    with pytest.raises(RecipeError, match=r"lr: 0\.0002 -> 0\.5"):
        pretrain_diffusion(small(pictures, "steps=4", "lr=0.5"), out)
    with pytest.raises(RecipeError, match=r"4 are done already -> 3"):
        pretrain_diffusion(small(pictures, "steps=3"), out)
    pretrain_diffusion(small(pictures), out)
    pretrain_diffusion(small(pictures), whole)
    assert table(out / "losses.csv") == table(whole / "losses.csv")
    assert json.loads((out / "done.json").read_text())["steps"] == 6
    Image.new("RGB", (20, 24)).save(pictures / "a" / "1.png")
    with pytest.raises(DataError, match=r"a-1\.png"):
        pretrain_diffusion(small(pictures, "steps=8"), out)


def test_a_stopped_training_may_end_where_it_was_stopped_and_no_earlier(pictures, tmp_path) -> None:
    often = ("checkpoint_minutes=0", "validate_every=100", "sample_every=0")
    with pytest.raises(RuntimeError):
        pretrain_diffusion(small(pictures, "steps=8", *often), tmp_path, Sends(5, None))
    with pytest.raises(RecipeError, match=r"4 done[\s\S]*at most 2[\s\S]*set steps=4"):
        pretrain_diffusion(small(pictures, "steps=2", *often), tmp_path)
    found = pretrain_diffusion(small(pictures, "steps=4", *often), tmp_path)
    assert found.steps == 4
    assert {"train", "learned", "held_out"} == set(found.loss)


def test_samples_are_grids_of_the_pictures_asked_for(pictures, tmp_path) -> None:
    pretrain_diffusion(small(pictures), tmp_path / "out")
    found = sorted((tmp_path / "out" / "samples").iterdir())
    assert [path.name for path in found] == ["step-000003.png", "step-000006.png"]
    grid = np.asarray(Image.open(found[-1]))
    assert grid.shape == (2 * 16 + 2, 3 * 16 + 2 * 2, 3)
    assert (grid[:, 16:18] == 255).all()
    assert grid[:16, :16].std() > 0
    assert (grid[18:, 36:] == 255).all()  # five of six


def test_every_picture_is_seen_once_before_any_is_seen_again(pictures, tmp_path) -> None:
    work = training(small(pictures), tmp_path / "out")
    seen = [number for step in range(5) for number in work.order(step)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_losses_that_stay_non_finite_end_the_training_and_name_the_pictures(pictures, tmp_path) -> None:
    work = training(small(pictures, "bad_steps=2"), tmp_path / "out")
    with torch.no_grad():
        work.unet.conv_in.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite in 2 steps"):
        work.run()
    dump = json.loads((tmp_path / "out" / "bad_batch.json").read_text())
    assert set(dump["pictures"]) <= set(work.train.names)
    assert work.position.skipped == 2
