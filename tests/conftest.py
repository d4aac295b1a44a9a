"""Shared by all tests: one compute thread, no network, and the folder of real data where there is one."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by PRECEPTOR_DATA; the test skips, saying so, where there is none."""
    folder = os.environ.get("PRECEPTOR_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PRECEPTOR_DATA names no folder of real data")
    return Path(folder)


@pytest.fixture(scope="session")
def loss_cases() -> Any:
    """The golden loss cases (`golden/losses.py`)."""
    spec = importlib.util.spec_from_file_location("golden_losses", Path(__file__).parent / "golden" / "losses.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LossCases()


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """Sixteen 32 x 32 pictures in the plain layout: a bright square to find, a look-alike, and a report that tells."""
    import numpy as np
    from PIL import Image

    root = tmp_path / "data"
    noise = np.random.default_rng(0)
    rows = {"reports": ["case,report"], "groups": ["case,group"], "splits": ["case,split"]}
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(16):
        image = noise.normal(90, 12, (32, 32))
        mask = np.zeros((32, 32), np.uint8)
        row, left = int(noise.integers(2, 18)), bool(noise.integers(2))
        for there in (True, False):
            column = 3 if there else 19
            image[row : row + 10, column : column + 10] += 90
            if there == left:
                mask[row : row + 10, column : column + 10] = 255
        case = f"c{index:02d}"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{case}.png")
        Image.fromarray(mask).save(root / "masks" / f"{case}.png")
        rows["reports"].append(f"{case},The square on the {'left' if left else 'right'} is meant.")
        rows["groups"].append(f"{case},p{index}")
        rows["splits"].append(f"{case},{'train' if index < 8 else 'val' if index < 10 else 'test'}")
    for name, lines in rows.items():
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def small_recipe(small_data: Path) -> dict:
    """Plain dictionaries of a recipe on `small_data` that trains in seconds."""
    return {
        "name": "small",
        "data": {
            "root": str(small_data),
            "labels": {"background": 0, "square": 255},
            "image_size": 32,
            "channels": 1,
        },
        "reports": {"length": 12, "width": 16},
        "teacher": {"segmentor": {"name": "guided", "size": "tiny"}, "privilege": "report"},
        "student": {"name": "unguided", "size": "tiny"},
        "distill": [{"name": "token_l1", "weight": 0.5}],
        "training": {"epochs": 2, "min_epochs": 1, "batch_size": 4, "lr": 1e-3, "precision": "float32"},
        "evaluate": {"bootstrap": 200},
    }
