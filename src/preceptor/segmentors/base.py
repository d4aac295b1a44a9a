"""The contract of every segmentor: from an image, and where privileged a condition, to logits and tapped features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from preceptor.errors import RecipeError

Size = Literal["tiny", "small", "base"]
Group = Literal["stem", "encoder", "preact", "decoder", "logits"]


class Segmentation(NamedTuple):
    """What a segmentor returns.

    logits: [B, C, H, W] at the input's size; C = 1 is the foreground logit of a binary problem.
    features: from tap name to [B, C_k, H_k, W_k]; "logits" is there where the head answers at a coarser stride.
    auxiliary: further logits [B, C, h, w] of side heads, each at its own stride, in the order the segmentor documents.
    aligned: maps [B, C, H, W] that are no answers, but that `Segmentor.own_losses` compares.
    """

    logits: Tensor
    features: dict[str, Tensor]
    auxiliary: tuple[Tensor, ...] = ()
    aligned: tuple[Tensor, ...] = ()

    @property
    def native(self) -> Tensor:
        """The logits as the head computes them, before any enlargement: [B, C, h, w]."""
        return self.features.get("logits", self.logits)


@dataclass(frozen=True)
class Tap:
    """A named intermediate feature: [B, channels, H / stride, W / stride], sides rounded up.

    group: where in the network it stands: before the encoder's first stage ("stem", compared only when named), the
    end of an encoder stage, the same before its last ReLU ("preact"), a decoder block (or a transformer's bridge), or
    the head's logits. Distillers choose by it when no pairs are named.
    """

    name: str
    channels: int
    stride: int
    group: Group = "decoder"


@dataclass(frozen=True)
class Condition:
    """What a privileged segmentor is shown besides the image.

    kind "report": token features [B, length, width]. kind "attributes": coded facts [B, width], length 1, NaN where
    one is unknown; a network answers to unknown ones alone as if it were shown none.
    """

    kind: Literal["report", "attributes"]
    length: int
    width: int

    @property
    def described(self) -> str:
        """What must be given with every image, in words."""
        if self.kind == "report":
            return f"a report as token features [{self.length}, {self.width}]"
        return f"{self.width} coded attributes"


class Segmentor(nn.Module):
    """Base of the networks. A subclass sets the attributes below and implements `forward`.

    in_channels, classes: as in the input and the logits (classes counts the background; a one-channel binary network
    has classes = 2). divisor: height and width must be multiples of it. taps: true before any forward pass, from
    shallow to deep within a group of the encoder and from deep to shallow within the decoder.
    side_heads: how many `auxiliary` logits every forward pass in training mode returns.
    condition: None for a network that needs the image alone; such a network has no text parameter anywhere.
    """

    in_channels: int
    classes: int
    divisor: int
    taps: tuple[Tap, ...]
    condition: Condition | None = None
    side_heads: int = 0
    privileged: ClassVar[bool] = False

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """image: [B, in_channels, H, W] float, normalised; condition: as `self.condition` says, or None."""
        raise NotImplementedError

    def pinned(self) -> dict[str, Any]:
        """Options that a package of this network holds beside those that it was built with: where a file lies that is
        no part of the package, and under the same name with `_hash` its SHA-256.
        """
        return {}

    # A network with a part that never learns and sees the image alone implements the next four, so that what that part
    # answers can be computed once and kept (`learning.cache`); forward(image, condition) must equal
    # classify(frozen_maps(image), condition, (H, W)).

    def frozen_shapes(self, size: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) of each frozen map of an image of `size` (H, W); () where no part is frozen."""
        return ()

    def frozen_identity(self) -> str:
        """A hash of everything but the image that the frozen maps depend on, weights above all."""
        raise NotImplementedError

    def frozen_maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """image: [B, in_channels, H, W] -> the frozen part's maps [B, C_k, h_k, w_k], without gradient."""
        raise NotImplementedError

    def classify(self, maps: Sequence[Tensor], condition: Tensor | None, size: tuple[int, int]) -> Segmentation:
        """What `forward` answers to an image of `size` (H, W), from its frozen maps in any floating-point type."""
        raise NotImplementedError

    def own_losses(self, found: Segmentation) -> dict[str, Tensor]:
        """Named float32 scalars on which this network is trained besides the segmentation loss; most have none."""
        return {}


def require_divisible(image: Tensor, divisor: int, name: str) -> None:
    """Raise RecipeError where height or width of [B, C, H, W] is no multiple of `divisor`."""
    height, width = image.shape[-2:]
    if height % divisor or width % divisor:
        raise RecipeError(
            f"{name} cannot take images of this size",
            where="data.image_size",
            found=f"{height} x {width}",
            expected=f"multiples of {divisor}",
            remedy=f"set data.image_size, for example to {-(-height // divisor) * divisor}",
        )


def check_classes(in_channels: int, classes: int) -> None:
    """Raise RecipeError unless there is a channel and a class besides the background."""
    if in_channels < 1 or classes < 2:
        raise RecipeError(
            "a network needs at least one channel and two classes (background and one more)",
            found=f"in_channels {in_channels}, classes {classes}",
        )


def probabilities(logits: Tensor) -> Tensor:
    """Class probabilities [B, C, H, W], C >= 2, in float32: softmax, or for one channel (1 - sigmoid, sigmoid)."""
    logits = logits.float()
    if logits.shape[1] == 1:
        foreground = torch.sigmoid(logits)
        return torch.cat([1 - foreground, foreground], dim=1)
    return torch.softmax(logits, dim=1)


def learnable_parameters(network: nn.Module) -> int:
    """Number of parameters that an optimiser would change."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
