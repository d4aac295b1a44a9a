"""The report-guided teacher of TextFreeKD, and LanGuideMedSeg, from which it derives."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.segmentors.attention import Attention, sinusoid
from preceptor.segmentors.base import Condition, Segmentation, Size, check_classes
from preceptor.segmentors.convnext import ImageEncoder, dimensions
from preceptor.segmentors.guide_network import GuideDecoder, GuideNetwork, SelfGuideLayer

Variant = Literal["textfreekd", "languide"]

INITIAL_SCALE: dict[str, float] = {"textfreekd": 0.01, "languide": 1.421}
"""alpha, by which what was read in the report enters the image tokens, before training."""


class GuideLayer(SelfGuideLayer):
    """Self-attention, then out = v + alpha * LN_d(cross-attention(LN_c(v), report)), four heads, no padding mask.

    The report's `length` tokens of `report_width` become `report_tokens` tokens of the image's width: a mixture over
    tokens, GELU, a projection, LeakyReLU.
    """

    def __init__(
        self, width: int, length: int, report_width: int, report_tokens: int, *, heads: int = 4, scale: float = 0.01
    ) -> None:
        super().__init__(width)
        self.mix_tokens = nn.Conv1d(length, report_tokens, kernel_size=1)
        self.project = nn.Linear(report_width, width)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads)
        self.cross_out_norm = nn.LayerNorm(width)
        self.scale = nn.Parameter(torch.tensor(scale))

    def read(self, report: Tensor) -> Tensor:
        """report: [B, length, report_width]. Returns [B, report_tokens, C]."""
        return functional.leaky_relu(self.project(functional.gelu(self.mix_tokens(report))), 0.01)

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """tokens: [B, N, C]; condition: [B, length, report_width]. Returns [B, N, C]."""
        assert condition is not None
        seen = super().forward(tokens)
        report = self.read(condition)
        query = self.cross_norm(seen)
        query = query + sinusoid(query.shape[1], query.shape[2], query.device)
        key = report + sinusoid(report.shape[1], report.shape[2], report.device)
        return seen + self.scale * self.cross_out_norm(self.cross_attention(query, key, report))


class Guided(GuideNetwork):
    """Segments from the image and the report's token features [B, length, width] of `condition`.

    variant: "textfreekd" (one logit per class), "languide" (one foreground logit, two classes, alpha from 1.421).
    report_tokens: tokens that the three guide layers make of the report, from the coarsest; cross_heads: their
    attention heads, by which the three upper widths must be divisible. Other options as in `Unguided`.
    Raises RecipeError for impossible dimensions.
    """

    privileged: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        condition: Condition,
        variant: Variant = "textfreekd",
        widths: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        report_tokens: Sequence[int] = (24, 12, 9),
        cross_heads: int = 4,
        head_width: int = 24,
        layer_scale: float = 1e-6,
        drop_path: float = 0.0,
        deep_supervision: bool = False,
        transposed: bool = False,
        pretrained: str | None = None,
    ) -> None:
        check_classes(in_channels, classes)
        widths, depths = dimensions(size, widths, depths)
        _check(variant, classes, condition, report_tokens, widths, cross_heads)
        encoder = ImageEncoder(
            in_channels, widths, depths, layer_scale=layer_scale, drop_path=drop_path, pretrained=pretrained
        )
        decoder = GuideDecoder(
            widths,
            1 if variant == "languide" else classes,
            lambda index, width: GuideLayer(
                width,
                condition.length,
                condition.width,
                report_tokens[index],
                heads=cross_heads,
                scale=INITIAL_SCALE[variant],
            ),
            head_width=head_width,
            deep_supervision=deep_supervision,
        )
        super().__init__(encoder, decoder, in_channels=in_channels, classes=classes, transposed=transposed)
        self.condition = condition

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """condition: [B, length, width] report features; the rest as in `GuideNetwork.forward`.

        Raises ValueError without a condition.
        """
        if condition is None:
            raise ValueError("a report-guided segmentor needs the report's token features [B, length, width]")
        return super().forward(image, condition)


def _check(
    variant: str,
    classes: int,
    condition: Condition,
    report_tokens: Sequence[int],
    widths: tuple[int, ...],
    cross_heads: int,
) -> None:
    if variant not in INITIAL_SCALE:
        raise RecipeError("there is no such variant", where="variant", found=variant, expected=", ".join(INITIAL_SCALE))
    if variant == "languide" and classes != 2:
        raise RecipeError("LanGuide has one foreground class", where="classes", found=classes, expected=2)
    if condition.kind != "report":
        raise RecipeError(
            "a guided segmentor reads reports", where="condition", found=condition.kind, expected="report"
        )
    if len(report_tokens) != 3 or not all(isinstance(count, int) and count > 0 for count in report_tokens):
        raise RecipeError("three positive whole numbers are needed", where="report_tokens", found=list(report_tokens))
    if any(width % cross_heads for width in widths[1:]):
        raise RecipeError(
            "the widths are not divisible by the attention heads",
            where="cross_heads",
            found=f"{cross_heads} heads, widths {list(widths[1:])}",
        )
