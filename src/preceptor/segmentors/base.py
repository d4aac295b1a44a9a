"""The contract of every segmentor: from an image, and where privileged a condition, to logits and tapped features."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

Size = Literal["tiny", "small", "base"]


class Segmentation(NamedTuple):
    """What a segmentor returns.

    logits: [B, C, H, W] at the input's size; C = 1 is the foreground logit of a binary problem.
    features: from tap name to [B, C_k, H_k, W_k].
    auxiliary: further logits [B, C, H, W] of side heads, in the order the segmentor documents; empty if none.
    """

    logits: Tensor
    features: dict[str, Tensor]
    auxiliary: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Tap:
    """A named intermediate feature: [B, channels, H / stride, W / stride]."""

    name: str
    channels: int
    stride: int


@dataclass(frozen=True)
class Condition:
    """What a privileged segmentor is shown besides the image.

    kind "report": token features [B, length, width]; kind "attributes": [B, width], length 1.
    """

    kind: Literal["report", "attributes"]
    length: int
    width: int


class Segmentor(nn.Module):
    """Base of the networks. A subclass sets the attributes below and implements `forward`.

    in_channels, classes: as in the input and the logits (classes counts the background; a one-channel binary network
    has classes = 2). divisor: height and width must be multiples of it. taps: true before any forward pass.
    condition: None for a network that needs the image alone; such a network has no text parameter anywhere.
    """

    in_channels: int
    classes: int
    divisor: int
    taps: tuple[Tap, ...]
    condition: Condition | None = None
    privileged: ClassVar[bool] = False

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """image: [B, in_channels, H, W] float, normalised; condition: as `self.condition` says, or None."""
        raise NotImplementedError


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
