"""Shared by all tests: one compute thread, no network, and the folder of real data where there is one."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by PRECEPTOR_DATA; the test skips, saying so, where there is none."""
    folder = os.environ.get("PRECEPTOR_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PRECEPTOR_DATA names no folder of real data")
    return Path(folder)
