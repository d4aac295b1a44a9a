"""A segmentor that can be reckoned by hand: foreground is what is brighter than one half."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from preceptor.data.transforms import Preprocessing
from preceptor.delivery.package import Package, load_package, save_package
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition, Segmentation, Segmentor


class Bright(Segmentor):
    """Class k is most probable between (k - 1/2) / (classes - 1) and (k + 1/2) / (classes - 1) of the first channel."""

    def __init__(self, in_channels: int = 1, classes: int = 2, size: str = "base", *, steep: float = 50.0) -> None:
        super().__init__()
        self.in_channels, self.classes, self.divisor, self.taps = in_channels, classes, 2, ()
        self.centres = nn.Parameter(torch.arange(classes) / (classes - 1))
        self.steep = steep
        self.largest_batch = 0

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        self.largest_batch = max(self.largest_batch, len(image))
        distance = (image[:, :1] - self.centres[None, :, None, None]).square()
        return Segmentation(-self.steep * distance, {})


class Told(Bright):
    """The same, but shown a report, whose mean shifts the picture."""

    def __init__(self, in_channels: int = 1, classes: int = 2, size: str = "base", *, condition: Condition) -> None:
        super().__init__(in_channels, classes)
        self.condition = condition

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        assert condition is not None
        return super().forward(image + condition.mean((1, 2))[:, None, None, None])


@pytest.fixture
def bright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Package]:
    """Packages of `Bright` (or `Told`): bright(labels=..., size=..., channels=..., condition=...)."""
    monkeypatch.setitem(zoo.SEGMENTORS, "bright", Bright)
    monkeypatch.setitem(zoo.SEGMENTORS, "told", Told)

    def make(
        labels: dict[str, Any] | None = None,
        size: tuple[int, int] = (16, 16),
        channels: int = 1,
        condition: Condition | None = None,
        folder: str = "package",
    ) -> Package:
        labels = labels or {"background": 0, "lesion": 255}
        name = "told" if condition else "bright"
        network = zoo.build(name, in_channels=channels, classes=len(labels), condition=condition)
        segmentor = {
            "name": name,
            "size": "base",
            "options": {},
            "in_channels": channels,
            "classes": len(labels),
            "condition": condition,
        }
        preprocessing = Preprocessing(size, channels, "bilinear", True, "unit")
        save_package(
            tmp_path / folder, network, segmentor=segmentor, preprocessing=preprocessing, labels=labels, card={}
        )
        return load_package(tmp_path / folder)

    return make
