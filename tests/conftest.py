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
