"""Killed, preempted and changed runs: the same command goes on with the same trace, or refuses with the difference."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preceptor.errors import DataError, RecipeError, StorageError
from preceptor.learning.checkpoints import LATEST, PREVIOUS, load_checkpoint, save_checkpoint
from preceptor.pipeline import run
from preceptor.recipe import validate_recipe


def trace(folder: Path) -> list[dict[str, str]]:
    with open(folder / "steps.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def command(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "preceptor.cli", "run", str(recipe), "--out", str(out), "--only", "control", "-q"]


def wait_for_steps(folder: Path, process: subprocess.Popen, steps: int) -> None:
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        if (folder / "steps.csv").exists() and len(trace(folder)) >= steps:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run ended or hung before step {steps}: {process.poll()}")


@pytest.fixture
def long_recipe(small_recipe: dict, tmp_path: Path) -> Path:
    """Enough steps to be killed among, a checkpoint at each."""
    training = {**small_recipe["training"], "epochs": 4, "batch_size": 2, "checkpoint_minutes": 0.0}
    path = tmp_path / "recipe.yaml"
    path.write_text(validate_recipe({**small_recipe, "training": training}).to_yaml(), encoding="utf-8")
    return path


@pytest.mark.parametrize("sign", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_with_the_trace_of_the_uninterrupted_one(long_recipe, tmp_path, sign) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = subprocess.Popen(command(long_recipe, cut), env=environment)
    wait_for_steps(cut / "control" / "seed-0", process, 9)
    process.send_signal(sign)
    assert process.wait(60) != 0
    assert not (cut / "control" / "seed-0" / "done.json").exists()
    subprocess.run(command(long_recipe, cut), env=environment, check=True, timeout=300)
    subprocess.run(command(long_recipe, whole), env=environment, check=True, timeout=300)
    assert trace(cut / "control" / "seed-0") == trace(whole / "control" / "seed-0")


def test_a_changed_recipe_refuses_to_resume_and_shows_the_difference(small_recipe, tmp_path) -> None:
    out = tmp_path / "run"
    run(validate_recipe(small_recipe), out, only=["control"])
    changed = {**small_recipe, "training": {**small_recipe["training"], "lr": 0.5}}
    with pytest.raises(RecipeError, match=r"training\.lr: 0\.001 -> 0\.5"):
        run(validate_recipe(changed), out)


def test_a_changed_image_refuses_to_resume_and_names_the_case(small_recipe, small_data, tmp_path) -> None:
    from PIL import Image

    out = tmp_path / "run"
    run(validate_recipe(small_recipe), out, only=["control"])
    image = sorted((small_data / "images").iterdir())[0]
    Image.open(image).point(lambda value: 255 - value).save(image)
    with pytest.raises(DataError, match=image.stem):
        run(validate_recipe(small_recipe), out)


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path) -> None:
    import torch

    for step in (1, 2):
        save_checkpoint(tmp_path, {"task": {"w": torch.full((3,), float(step))}, "position": {"step": step}})
    latest = tmp_path / LATEST
    latest.write_bytes(latest.read_bytes()[:-4])
    state, note = load_checkpoint(tmp_path)
    assert state is not None
    assert state["position"]["step"] == 1
    assert LATEST in note
    assert PREVIOUS in note


def test_a_changed_byte_in_a_checkpoint_is_noticed(tmp_path) -> None:
    import torch

    save_checkpoint(tmp_path, {"task": {"w": torch.ones(64)}})
    latest = tmp_path / LATEST
    content = bytearray(latest.read_bytes())
    content[-1] ^= 1
    latest.write_bytes(content)
    with pytest.raises(StorageError, match="no checkpoint of this arm is whole"):
        load_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch) -> None:
    import torch

    save_checkpoint(tmp_path, {"position": {"step": 1}, "task": {"w": torch.ones(8)}})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match="could not be written"):
        save_checkpoint(tmp_path, {"position": {"step": 2}, "task": {"w": torch.zeros(8)}})
    state, note = load_checkpoint(tmp_path)
    assert state is not None
    assert state["position"]["step"] == 1
    assert note == ""


def test_two_processes_cannot_work_in_one_run_folder(small_recipe, tmp_path) -> None:
    from filelock import FileLock

    out = tmp_path / "run"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(StorageError, match="another process"):
        run(validate_recipe(small_recipe), out)
