"""C2FVL (Li et al., ICASSP 2023, arXiv 2303.00279): coarse-to-fine segmentation aligned with coded report attributes.

The U-Net's skips are joined by tokens of all scales above and multiplied by the attributes; the decoder's gated skips
answer, too, and are aligned with each other. At size base it has the 24.2 million parameters of the official network
that take part in an answer, without the 16.3 million that never do.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Condition, Segmentation, Segmentor, Size, Tap, check_classes, require_divisible
from preceptor.segmentors.c2fvl_blocks import Down, TokenEncoder, Up
from preceptor.segmentors.convolution import ConvNorm

Gate = Literal["raw", "affine"]

DIAL: dict[str, int] = {"tiny": 16, "small": 32, "base": 64}
"""Size to the width of the first scale."""
PATCHES = (16, 8, 4, 2)
"""Pixels of each scale along a side of one token, which is 16 pixels of the image."""
ALIGNMENT_WEIGHT = 0.5
"""Of each of the three coarser maps in the alignment."""
NUMBER = 1
"""Place of the one attribute that is a count; all others are 0 or 1."""
AFFINE_STEP, AFFINE_COUNT_STEP = 0.5, 0.1
"""By how much the gate `affine` enlarges channels for a fact that holds, and for each counted area."""


def cosine_alignment(maps: Sequence[Tensor]) -> Tensor:
    """The mean over images of 0.5 (1 - cos(p1, p_i)), summed over all maps after the first, the anchor; float32.

    maps: raw logits p1, p2, ..., each [B, C, H, W], flattened for an image; gradients reach all of them.
    Source: specification of C2FVL, section 5.
    """
    anchor, *others = (found.float().flatten(1) for found in maps)
    apart = [1 - functional.cosine_similarity(anchor, other, dim=1) for other in others]
    return ALIGNMENT_WEIGHT * torch.stack(apart).sum(dim=0).mean()


def attribute_gain(attributes: Tensor, gate: Gate) -> Tensor:
    """By what the channels of each attribute are multiplied: [B, D] from attributes [B, D], NaN where unknown.

    "raw": the attribute itself, as published, so that a fact that does not hold silences its channels. "affine":
    1 + 0.5 for a fact that holds, 1 + 0.1 for each counted area. Unknown: 1, which changes nothing.
    """
    known = torch.where(attributes.isnan(), torch.ones_like(attributes), attributes)
    if gate == "raw":
        return known
    count = torch.arange(attributes.shape[1], device=attributes.device) == NUMBER
    steps = torch.where(count, AFFINE_COUNT_STEP, AFFINE_STEP)
    return torch.where(attributes.isnan(), torch.ones_like(attributes), 1 + steps * attributes)


class C2FVLFree(Segmentor):
    """C2FVL without attributes: from the image alone, what `C2FVL` answers where every attribute is unknown.

    size: the dial; width: of the first scale in place of the dial's. image_size: side, or [height, width], for which
    the position tables are made; any multiples of 16 will do. heads: of the token encoders' attention.
    dropout: in the token encoders. classes = 2 gives one logit.
    Taps: stage1-5 (encoder, strides 1 to 16), decoder4-1 (strides 8 to 1). `Segmentation.aligned` holds the maps p1
    to p4 of the gated skips, each at the image's size, on which `own_losses` trains. Raises RecipeError for
    impossible dimensions.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        width: int | None = None,
        image_size: int | Sequence[int] = 224,
        heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if size not in DIAL:
            raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(DIAL))
        check_classes(in_channels, classes)
        width = DIAL[size] if width is None else width
        if width < 2 or width % heads:
            raise RecipeError(
                "the width is not divisible by the attention heads", where="width", found=width, expected=f"n x {heads}"
            )
        self.in_channels, self.classes, self.divisor = in_channels, classes, 16
        grid = _grid(image_size)
        widths = (width, 2 * width, 4 * width, 8 * width)
        befores = (0, *widths[:3])
        self.stem = ConvNorm(in_channels, width, 3, bias=True)
        self.downs = nn.ModuleList(Down(a, b) for a, b in zip(widths, (*widths[1:], widths[3]), strict=True))
        self.tokens = nn.ModuleList(
            TokenEncoder(widths[i], befores[i], PATCHES[i], grid, heads=heads, dropout=dropout) for i in range(4)
        )
        self.rebuild = nn.ModuleList(ConvNorm(w, w, 1, bias=True) for w in widths)
        outs = (width, width, 2 * width, 4 * width)
        self.ups = nn.ModuleList(Up(2 * widths[i], outs[i]) for i in (3, 2, 1, 0))
        logits = 1 if classes == 2 else classes
        self.head = nn.Conv2d(width, logits, kernel_size=1)
        self.align = nn.ModuleList(nn.Conv2d(widths[i], logits, kernel_size=1) for i in (3, 2, 1))
        self.taps = (
            *(Tap(f"stage{i + 1}", w, 2**i, "encoder") for i, w in enumerate((*widths, widths[3]))),
            *(Tap(f"decoder{i + 1}", outs[i], 2**i) for i in (3, 2, 1, 0)),
        )

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """image: [B, in_channels, H, W], sides multiples of 16. Raises RecipeError for another size."""
        return self._segment(image, None)

    def _segment(self, image: Tensor, gain: Tensor | None) -> Segmentation:
        """gain: [B, D] factors of the skips' channels, channel c taking that of c modulo D."""
        require_divisible(image, self.divisor, "C2FVL")
        stages = [self.stem(image.contiguous(memory_format=torch.channels_last))]
        for down in self.downs:
            stages.append(down(stages[-1]))
        features = {f"stage{number}": stage for number, stage in enumerate(stages, start=1)}
        skips, tokens = [], None
        for stage, encode, rebuild, patch in zip(stages, self.tokens, self.rebuild, PATCHES, strict=False):
            tokens = encode(stage, tokens)
            skips.append(_joined(stage, rebuild(tokens), patch, gain))
        current, aligned = stages[4], []
        for number, up, head, skip in zip((4, 3, 2, 1), self.ups, self._heads(), reversed(skips), strict=True):
            current, _, answer = up(current, skip, head)
            features[f"decoder{number}"] = current
            aligned.append(functional.interpolate(answer, scale_factor=2 ** (number - 1), mode="nearest"))
        return Segmentation(self.head(current), features, aligned=tuple(reversed(aligned)))

    def _heads(self) -> Sequence[nn.Module]:
        """Of the gated skips, coarsest first; the finest shares the network's."""
        return (*self.align, self.head)

    def own_losses(self, found: Segmentation) -> dict[str, Tensor]:
        """ "alignment": the cosine alignment of p1 to p4."""
        return {"alignment": cosine_alignment(found.aligned)}


class C2FVL(C2FVLFree):
    """Segments from the image and the coded attributes [B, D] of its report, NaN where one is unknown.

    gate: "raw" multiplies the skips' channels by the attributes, as published; "affine" only ever enlarges them (see
    `attribute_gain`). It has no parameters, so weights of one gate, or of `C2FVLFree`, fit the other. Other options
    as in `C2FVLFree`. Raises RecipeError for impossible dimensions.
    """

    privileged: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        condition: Condition,
        gate: Gate = "raw",
        width: int | None = None,
        image_size: int | Sequence[int] = 224,
        heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        options = {"width": width, "image_size": image_size, "heads": heads, "dropout": dropout}
        super().__init__(in_channels, classes, size, **options)  # type: ignore[arg-type]
        if gate not in get_args(Gate):
            raise RecipeError("there is no such gate", where="gate", found=gate, expected=", ".join(get_args(Gate)))
        if condition.kind != "attributes":
            raise RecipeError("C2FVL reads attributes", where="condition", found=condition.kind, expected="attributes")
        if self.stem.conv.out_channels % condition.width:
            raise RecipeError(
                "the width is no multiple of the number of attributes",
                where="width",
                found=self.stem.conv.out_channels,
                expected=f"n x {condition.width}",
            )
        self.condition, self.gate = condition, gate

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """condition: [B, D] attributes, NaN where unknown; the rest as in `C2FVLFree.forward`.

        Raises ValueError without a condition.
        """
        if condition is None:
            raise ValueError("C2FVL needs the attributes [B, D] of the reports, NaN where they are unknown")
        return self._segment(image, attribute_gain(condition, self.gate))


def _joined(stage: Tensor, tokens: Tensor, patch: int, gain: Tensor | None) -> Tensor:
    """(stage + tokens enlarged by nearest neighbour) * gain, in one pass.

    stage: [B, C, patch h, patch w], tokens: [B, C, h, w], gain: [B, D] or None.
    """
    patches = stage.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    spread = tokens[:, :, :, None, :, None]
    if gain is None:
        return (patches + spread).flatten(4).flatten(2, 3)
    factors = gain.repeat(1, stage.shape[1] // gain.shape[1])[:, :, None, None, None, None]
    return torch.addcmul(spread * factors, patches, factors).flatten(4).flatten(2, 3)


def _grid(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the position tables."""
    sides = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 and side % 16 == 0 for side in sides):
        raise RecipeError(
            "the position tables need an image size",
            where="image_size",
            found=image_size,
            expected="one or two multiples of 16",
        )
    return sides[0] // 16, sides[1] // 16
