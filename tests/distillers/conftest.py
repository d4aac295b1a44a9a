"""The golden cases of the distillers (`golden/distillers.py`)."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def distiller_cases() -> Any:
    """Reads inputs by the name of a case and checks the loss against it."""
    source = Path(__file__).resolve().parent.parent / "golden" / "distillers.py"
    spec = importlib.util.spec_from_file_location("golden_distillers", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DistillerCases()
