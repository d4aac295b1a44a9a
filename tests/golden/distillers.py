"""Reads the golden cases of `distillers`: inputs and weights as tensors, and checks value, gradients and outputs."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent
IGNORED = 255


def _fill() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_fill", HERE / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class DistillerCases:
    """The cases of `distillers.json`; a case is the dictionary of the file."""

    def __init__(self) -> None:
        self.fill = _fill()
        content = json.loads((HERE / "distillers.json").read_text())
        self.cases: dict[str, dict[str, Any]] = {case["case"]: case for case in content["cases"]}
        self.arrays = np.load(HERE / "distillers.npz")

    def of(self, method: str) -> list[str]:
        """Names of the cases of a method: KD, AT, DKD, DIST, CWD or ReviewKD (whose parts begin with hcl, abf)."""
        found = [name for name, case in self.cases.items() if case["method"] == method]
        assert found, f"no golden case of {method}"
        return found

    def inputs(self, name: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The float inputs as `dtype`, needing a gradient where the case has one, and int64 labels (255: ignored)."""
        case = self.cases[name]
        made = {key: self._make(recipe, dtype) for key, recipe in case["inputs"].items()}
        for key in self._kept(case, "grad"):
            made[key].requires_grad_()
        return made

    def _make(self, recipe: dict[str, Any], dtype: torch.dtype) -> Tensor:
        shape = tuple(recipe["shape"])
        if recipe["fill"] == "labels":
            labels = torch.from_numpy(self.fill.labels(recipe["name"], shape, recipe["classes"]))
            if "value_meaning_255" in recipe:
                labels[labels == recipe["value_meaning_255"]] = IGNORED
            return labels
        values = self.fill.array(recipe["name"], shape, recipe["low"], recipe["high"])
        values[recipe.get("zero_samples", [])] = 0
        return torch.from_numpy(values).to(dtype)

    def weights(self, name: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The weights of the case in the original's names, in order."""
        listed = self.cases[name].get("weights", [])
        return {key: self.tensor(key, shape, dtype) for key, shape in listed}

    def tensor(self, name: str, shape: list[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """One weight by its original name, for cases that name it in `hyper`."""
        return torch.from_numpy(np.asarray(self.fill.tensor(name, tuple(shape)))).to(dtype)

    @staticmethod
    def _kept(case: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
        """From input or output name to what is known of its array; kind: grad or out."""
        return {key.partition("/")[2]: kept for key, kept in case["arrays"].items() if key.startswith(f"{kind}/")}

    def check(
        self,
        name: str,
        inputs: Mapping[str, Tensor],
        loss: Tensor,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        """The weighted loss, its gradient at every input that has one, and `outputs` agree at the case's tolerances.

        `outputs` has to hold every output of the case.
        """
        case = self.cases[name]
        limits, value = case["tolerance"], float(loss.detach())
        assert abs(value - case["loss"]) <= limits["loss_atol"] + limits["loss_rtol"] * abs(case["loss"]), (
            f"{name}: loss {value}, expected {case['loss']}"
        )
        loss.backward()
        for key, kept in self._kept(case, "grad").items():
            gradient = inputs[key].grad
            assert gradient is not None, f"{name}: no gradient reaches {key}"
            assert gradient.dtype == inputs[key].dtype
            self._compare(name, f"grad/{key}", gradient, kept)
        for key, kept in self._kept(case, "out").items():
            assert outputs is not None, f"{name}: the outputs {key} are wanted"
            self._compare(name, f"out/{key}", outputs[key].detach(), kept)

    def _compare(self, name: str, key: str, ours: Tensor, kept: dict[str, Any]) -> None:
        assert list(ours.shape) == kept["shape"], f"{name}: shape of {key}"
        expected = self.arrays[f"{name}/{key}"].reshape(-1)
        values = ours.numpy().reshape(-1)[:: kept["stride"]]
        np.testing.assert_allclose(values, expected, rtol=0, atol=kept["atol"], err_msg=f"{name}: {key}")
