"""Reads the golden loss cases: inputs as tensors, the value, and the gradients that were kept."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent


def _fill() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_fill", HERE / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class LossCases:
    """The cases of `textguided_losses`."""

    def __init__(self) -> None:
        self.fill = _fill()
        content = json.loads((HERE / "textguided_losses.json").read_text())
        self.tolerance: dict[str, float] = content["tolerance"]
        self.cases: list[dict[str, Any]] = content["cases"]
        self.arrays = np.load(HERE / "textguided_losses.npz")

    def of(self, loss: str) -> list[dict[str, Any]]:
        found = [case for case in self.cases if case.get("loss") == loss]
        assert found, f"no golden case of {loss}"
        return found

    def inputs(self, case: dict[str, Any]) -> dict[str, Tensor]:
        """Float tensors that need a gradient where the case has one, and int64 masks."""
        made = {name: self._make(recipe) for name, recipe in case["inputs"].items()}
        for name in case["gradients"]:
            made[name].requires_grad_()
        return made

    def _make(self, recipe: dict[str, Any]) -> Tensor:
        if recipe["make"] == "mask":
            mask = (self.fill.array(recipe["array"], recipe["shape"]) > recipe["above"]).astype(np.int64)
            mask[recipe["empty"]], mask[recipe["full"]] = 0, 1
            return torch.from_numpy(mask)
        values = self.fill.array(recipe["array"], recipe["shape"], recipe["low"], recipe["high"])
        for sample, token in recipe.get("zero_tokens", []):
            values[sample, token] = 0
        return torch.from_numpy(values)

    def check(self, case: dict[str, Any], inputs: dict[str, Tensor], value: Tensor) -> None:
        """Value and every gradient agree at the tolerance of the file."""
        limits = self.tolerance
        assert abs(value.item() - case["value"]) <= limits["value_atol"] + limits["value_rtol"] * abs(case["value"]), (
            case["case"]
        )
        value.backward()
        for name, kept in case["gradients"].items():
            gradient = inputs[name].grad
            assert gradient is not None, f"{case['case']}: no gradient reaches {name}"
            ours = gradient.numpy().reshape(-1)[:: kept["stride"]]
            np.testing.assert_allclose(
                ours,
                self.arrays[kept["npz"]],
                rtol=limits["gradient_rtol"],
                atol=limits["gradient_atol_over_abs_max"] * kept["abs_max"],
                err_msg=f"{case['case']}: gradient of {name}",
            )
