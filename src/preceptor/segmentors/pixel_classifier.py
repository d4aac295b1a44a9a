"""TextDiff's pixel classifier: frozen diffusion features of several scales, fused with the report, decoded to logits.

Source: specs of TextDiff, sections 6 and 9.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.segmentors.joined_convolution import JoinedConvolution
from preceptor.segmentors.text_attention import TextBlock, TextMean

Text = Literal["attention", "concat", "none"]


class Classified(NamedTuple):
    """logits: [B, classes, H, W]. fused: a map [B, width, h, w] a scale. decoded: the decoder's two maps at H x W."""

    logits: Tensor
    fused: tuple[Tensor, ...]
    decoded: tuple[Tensor, Tensor]


class PixelClassifier(nn.Module):
    """1x1 convolutions to one width, fusion with the report, a three-layer decoder on all scales enlarged.

    widths: channels of each scale's features. Scales that have `width` channels already have no 1x1 convolution; the
    first scale has one of its own, later ones of equal width share theirs, unless `independent`.
    text: "attention" to the report's tokens by a block that all scales share, or one each if `hierarchical`; "concat"
    of the report's mean token with every pixel, one 1x1 convolution a scale; "none". decoder_widths: of the first two
    of its convolutions. Raises RecipeError for impossible options.
    """

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        *,
        text: Text = "attention",
        text_width: int | None = None,
        width: int = 768,
        heads: int = 8,
        head_width: int = 64,
        decoder_widths: Sequence[int] = (128, 32),
        hierarchical: bool = False,
        independent: bool = False,
    ) -> None:
        super().__init__()
        _check(text, text_width, (*widths, width, heads, head_width, *decoder_widths), decoder_widths)
        self.width = width
        self.reduction = reductions(widths, width, independent)
        count = 1 + max((number for number in self.reduction if number is not None), default=-1)
        self.reduce = nn.ModuleList(
            nn.Conv2d(widths[self.reduction.index(number)], width, kernel_size=1) for number in range(count)
        )
        blocks: list[nn.Module] = []
        if text == "attention" and text_width is not None:
            copies = len(widths) if hierarchical else 1
            blocks = [TextBlock(width, text_width, heads, head_width) for _ in range(copies)]
        elif text == "concat" and text_width is not None:
            blocks = [TextMean(width, text_width) for _ in widths]
        self.fuse = nn.ModuleList(blocks)
        self.join = JoinedConvolution([width] * len(widths), decoder_widths[0])
        self.norm1 = nn.BatchNorm2d(decoder_widths[0])
        self.refine = nn.Conv2d(decoder_widths[0], decoder_widths[1], kernel_size=3, padding=1)
        self.norm2 = nn.BatchNorm2d(decoder_widths[1])
        self.head = nn.Conv2d(decoder_widths[1], classes, kernel_size=3, padding=1)
        self.apply(_start)

    def forward(self, maps: Sequence[Tensor], text: Tensor | None, size: tuple[int, int]) -> Classified:
        """maps: [B, widths[k], h_k, w_k]; text: [B, length, text_width], or None without text; size: (H, W)."""
        fused = tuple(self.fused(scale, features, text) for scale, features in enumerate(maps))
        first = functional.relu(self.norm1(self.join(fused, size)))
        second = functional.relu(self.norm2(self.refine(first)))
        return Classified(self.head(second), fused, (first, second))

    def fused(self, scale: int, maps: Tensor, text: Tensor | None) -> Tensor:
        """[B, widths[scale], h, w] -> [B, width, h, w]."""
        number = self.reduction[scale]
        if number is not None:
            maps = self.reduce[number](maps)
        if not len(self.fuse):
            return maps
        block = self.fuse[scale if len(self.fuse) > 1 else 0]
        pixels = block(maps.flatten(2).transpose(1, 2).contiguous(), text)
        return pixels.transpose(1, 2).unflatten(2, maps.shape[2:])


def reductions(widths: Sequence[int], width: int, independent: bool = False) -> list[int | None]:
    """Of each scale the number of its 1x1 convolution; None where the scale has `width` channels already."""
    numbers: list[int | None] = []
    shared: dict[int, int] = {}
    for scale, own in enumerate(widths):
        if own == width:
            numbers.append(None)
            continue
        fresh = 1 + max((number for number in numbers if number is not None), default=-1)
        numbers.append(fresh if independent or scale == 0 else shared.setdefault(own, fresh))
    return numbers


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def _check(text: str, text_width: int | None, numbers: Sequence[int], decoder_widths: Sequence[int]) -> None:
    if text not in get_args(Text):
        raise RecipeError(
            "there is no such way to read the report", where="text", found=text, expected=", ".join(get_args(Text))
        )
    if (text != "none") != (text_width is not None):
        raise RecipeError("a report's width goes with a classifier that reads it", where="text", found=text)
    if len(decoder_widths) != 2 or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise RecipeError(
            "positive whole numbers are needed, and two decoder widths",
            where="width, heads, head_width, decoder_widths",
            found=list(numbers),
        )
