"""Golden cases of networks: the original's state dict and inputs, regenerated, and the answers to compare with."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from preceptor.segmentors.base import Segmentation

FOLDER = Path(__file__).resolve().parent.parent / "golden"


class Golden:
    """One case: `state` in the original's names, `inputs` by the part of their name before the dot, `config`."""

    def __init__(self, name: str) -> None:
        spec = importlib.util.spec_from_file_location("golden_fill", FOLDER / "fill.py")
        assert spec is not None
        assert spec.loader is not None
        fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fill)
        self.fill = fill
        facts = json.loads((FOLDER / f"{name}.json").read_text())
        self.config = SimpleNamespace(**facts["config"])
        self.unused = set(facts.get("unused", ()))
        self.state = {key: torch.tensor(fill.tensor(key, tuple(shape))) for key, shape in facts["state"]}
        self.inputs = {
            key.partition(".")[0]: torch.tensor(item["values"])
            if "values" in item
            else torch.from_numpy(fill.array(key, tuple(item["shape"]), item["low"], item["high"]))
            for key, item in facts["inputs"].items()
        }
        self._outputs = facts["outputs"]
        self._tolerance = facts["tolerance"]
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self._reference = {key: arrays[key] for key in self._outputs}

    def assert_equal(self, name: str, ours: Tensor) -> None:
        """Fail unless `ours` has the original's shape and values, within the case's tolerance."""
        assert list(ours.shape) == self._outputs[name]["shape"]
        values = ours.detach().numpy().reshape(-1)[:: self._outputs[name].get("stride", 1)]
        reference = self._reference[name].reshape(-1)
        bound = self._tolerance["atol"][name] + self._tolerance["rtol"] * np.abs(reference)
        excess = np.abs(values - reference) / bound
        assert excess.max() <= 1, f"{name}: {excess.max():.2f} times the tolerance"

    def assert_stages_equal(self, found: Segmentation) -> None:
        """Fail unless a ResNet segmentor's logits, side logits, stages and decoder blocks are the original's."""
        ours = {"logits": found.native, **{f"aux_logits{n or ''}": side for n, side in enumerate(found.auxiliary)}}
        ours |= {f"stage{n}": found.features[f"layer{n}"] for n in range(1, 5)}
        ours |= {f"decoder[{n}]": found.features[f"decoder{n}"] for n in range(3) if f"decoder{n}" in found.features}
        for name in self._outputs:
            self.assert_equal(name, ours[name])


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """Loads a golden case by name."""
    return Golden
