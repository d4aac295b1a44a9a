"""Processes that a launcher started: one leads, the others train along."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.learning.launch import cluster_rank
from preceptor.recipe import validate_recipe


def test_only_processes_of_a_launcher_have_a_rank() -> None:
    assert cluster_rank({}) is None
    assert cluster_rank({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert cluster_rank({"RANK": "1", "WORLD_SIZE": "2"}) == 1
    assert cluster_rank({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}) == 3


@pytest.mark.slow
def test_two_processes_of_torchrun_make_one_run(small_recipe: dict, tmp_path: Path) -> None:
    training = {**small_recipe["training"], "batch_size": 2, "epochs": 1, "devices": 2, "strategy": "ddp"}
    path = tmp_path / "recipe.yaml"
    path.write_text(validate_recipe({**small_recipe, "training": training}).to_yaml(), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "preceptor.cli", "run", str(path), "--out", str(tmp_path / "run"), "-q"]
    subprocess.run(command, check=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (tmp_path / "run" / "summary.json").is_file()
    steps = (tmp_path / "run" / "control" / "seed-0" / "steps.csv").read_text().splitlines()
    assert len(steps) == 1 + 2  # 8 cases in batches of 2 on two processes
    assert not list((tmp_path / "run").rglob("open"))
