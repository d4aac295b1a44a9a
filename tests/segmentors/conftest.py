"""Golden cases of networks: the original's state dict and inputs, regenerated, and the answers to compare with."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
        self.facts = facts
        self.config = SimpleNamespace(**facts["config"])
        self.unused = set(facts.get("unused", ()))
        self.state = {key: self.filled(key, shape) for key, shape in facts["state"]}
        self.inputs = {key.partition(".")[0]: self._input(key, item) for key, item in facts["inputs"].items()}
        self.outputs = facts["outputs"]
        self._tolerance = facts["tolerance"]
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self._arrays = dict(arrays)

    def filled(self, key: str, shape: Sequence[int]) -> Tensor:
        """A tensor of the state by the fill rule, with the gain of the case's weights."""
        tensor = torch.tensor(self.fill.tensor(key, tuple(shape)))
        return tensor * getattr(self.config, "weight_gain", 1.0) if tensor.ndim > 1 else tensor

    def _input(self, key: str, item: dict[str, Any]) -> Tensor:
        """The input of that name by the fill rule, or as it is written down."""
        if "values" in item:
            return torch.tensor(item["values"])
        if "classes" in item:
            return torch.from_numpy(self.fill.labels(key, tuple(item["shape"]), item["classes"]))
        values = torch.from_numpy(self.fill.array(key, tuple(item["shape"]), item["low"], item["high"]))
        for axis in (2, 3) if "repeat" in item else ():
            values = values.repeat_interleave(item["fed_as"][axis] // item["shape"][axis], axis)
        return values

    def array(self, key: str) -> Tensor:
        """An array that is stored with the case."""
        return torch.from_numpy(self._arrays[key])

    def assert_equal(self, name: str, ours: Tensor) -> None:
        """Fail unless `ours` has the original's shape and values, within the case's tolerance."""
        assert list(ours.shape) == self.outputs[name]["shape"]
        values = ours.detach().numpy().reshape(-1)[:: self.outputs[name].get("stride", 1)]
        reference = self._arrays[name].reshape(-1)
        bound = self._tolerance["atol"][name] + self._tolerance["rtol"] * np.abs(reference)
        excess = np.abs(values - reference) / bound
        assert excess.max() <= 1, f"{name}: {excess.max():.2f} times the tolerance"

    def assert_stages_equal(self, found: Segmentation) -> None:
        """Fail unless a ResNet segmentor's logits, side logits, stages and decoder blocks are the original's."""
        ours = {"logits": found.native, **{f"aux_logits{n or ''}": side for n, side in enumerate(found.auxiliary)}}
        ours |= {f"stage{n}": found.features[f"layer{n}"] for n in range(1, 5)}
        ours |= {f"decoder[{n}]": found.features[f"decoder{n}"] for n in range(3) if f"decoder{n}" in found.features}
        for name in self.outputs:
            self.assert_equal(name, ours[name])


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """Loads a golden case by name."""
    return Golden
