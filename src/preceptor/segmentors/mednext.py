"""MedNeXt in two dimensions (Roy et al. 2023, arXiv 2303.09975), on MONAI's blocks.

MONAI's own network gives each down block the expansion ratio of the level it leaves; the published one gives it the
ratio of the level it enters. So the four down blocks are made anew, and the weights of the original fit. Layers that
PyTorch computes slowly are exchanged for their like (`depthwise`).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from preceptor.errors import RecipeError
from preceptor.extras import require_extra
from preceptor.segmentors.base import Segmentation, Segmentor, Size, Tap, check_classes, require_divisible
from preceptor.segmentors.depthwise import hasten

WIDTHS: dict[str, int] = {"tiny": 8, "small": 16, "base": 32}
"""Size to the channels of the first level."""

VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "S": ((2,) * 9, (2,) * 9),
    "B": ((2, 3, 4, 4, 4, 4, 4, 3, 2), (2,) * 9),
    "M": ((2, 3, 4, 4, 4, 4, 4, 3, 2), (3, 4, 4, 4, 4, 4, 4, 4, 3)),
    "L": ((3, 4, 8, 8, 8, 8, 8, 4, 3), (3, 4, 8, 8, 8, 8, 8, 4, 3)),
}
"""The paper's letter to (expansion ratios, blocks) of the nine levels: four down, the bottom, four up."""


class MedNeXt(Segmentor):
    """A U-Net of ConvNeXt-like blocks whose down and up paths are such blocks too; skips are added, not joined.

    width: channels of the first level in place of the dial's; each level doubles them. variant: the paper's letter;
    expansion, blocks: of the nine levels (four down, the bottom, four up) in place of the variant's. kernel_size: odd,
    of the depthwise convolutions. residual: shortcuts in the blocks, down and up paths. auxiliary: side heads as in
    the original's deep supervision, at strides 2, 4, 8 and 16 in this order.

    The defaults are the 2-D configuration of the seed: variant B, kernel 3, with 1 channel and 9 classes 10,447,625
    parameters. Its large one is variant L with kernel 5. Sides are multiples of 16, and one exceeds 16.
    Raises RecipeError for impossible options, UserError where MONAI is missing. Source: specs of segmentors, section 4.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        size: Size = "base",
        *,
        variant: str = "B",
        width: int | None = None,
        kernel_size: int = 3,
        expansion: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        residual: bool = True,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        require_extra("monai", "monai", "the segmentor mednext")
        from monai.networks.blocks.mednext_block import MedNeXtDownBlock
        from monai.networks.nets import MedNeXt as Library

        ratios, counts = _levels(variant, expansion, blocks)
        width = _width(size, width)
        check_classes(in_channels, classes)
        _check_kernel(kernel_size)
        self.in_channels, self.classes, self.divisor = in_channels, classes, 16
        network = Library(
            spatial_dims=2,
            init_filters=width,
            in_channels=in_channels,
            out_channels=classes,
            encoder_expansion_ratio=ratios[:4],
            bottleneck_expansion_ratio=ratios[4],
            decoder_expansion_ratio=ratios[5:],
            kernel_size=kernel_size,
            deep_supervision=auxiliary,
            use_residual_connection=residual,
            blocks_down=counts[:4],
            blocks_bottleneck=counts[4],
            blocks_up=counts[5:],
        )
        self.stem = network.stem
        self.enc_stages = network.enc_stages
        self.down_blocks = nn.ModuleList(
            MedNeXtDownBlock(width << level, width << level + 1, ratios[level + 1], kernel_size, residual, dim="2d")
            for level in range(4)
        )
        self.bottleneck = network.bottleneck
        self.up_blocks = network.up_blocks
        self.dec_stages = network.dec_stages
        self.out_0 = network.out_0
        self.out_blocks = network.out_blocks if auxiliary else nn.ModuleList()
        self.side_heads = len(self.out_blocks)
        hasten(self)
        self.taps = (
            *(Tap(f"encoder{level}", width << level, 1 << level, "encoder") for level in range(4)),
            Tap("bottleneck", width << 4, 16, "encoder"),
            *(Tap(f"decoder{level}", width << level, 1 << level, "decoder") for level in (3, 2, 1, 0)),
        )

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """As the base says; `encoder0` to `encoder3` and `decoder3` to `decoder0` are named by their level."""
        require_divisible(image, self.divisor, "mednext")
        _require_statistics(image)
        features = {}
        current = self.stem(image)
        for level, (stage, down) in enumerate(zip(self.enc_stages, self.down_blocks, strict=True)):
            features[f"encoder{level}"] = stage(current)
            current = down(features[f"encoder{level}"])
        current = features["bottleneck"] = self.bottleneck(current)
        for level, up, stage in zip((3, 2, 1, 0), self.up_blocks, self.dec_stages, strict=True):
            current = features[f"decoder{level}"] = stage(up(current) + features[f"encoder{level}"])
        deep = [features[name] for name in ("bottleneck", "decoder3", "decoder2", "decoder1")]
        sides = [head(feature) for head, feature in zip(self.out_blocks, deep, strict=False)]
        return Segmentation(self.out_0(current), features, tuple(reversed(sides)))


def _levels(
    variant: str, expansion: Sequence[int] | None, blocks: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if variant not in VARIANTS:
        raise RecipeError(
            "there is no such variant of MedNeXt", where="variant", found=variant, expected=", ".join(VARIANTS)
        )
    chosen = (tuple(expansion or VARIANTS[variant][0]), tuple(blocks or VARIANTS[variant][1]))
    for name, values in zip(("expansion", "blocks"), chosen, strict=True):
        if len(values) != 9 or not all(isinstance(value, int) and value > 0 for value in values):
            raise RecipeError("nine positive whole numbers are needed", where=name, found=list(values))
    return chosen


def _width(size: Size, chosen: int | None) -> int:
    if size not in WIDTHS:
        raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(WIDTHS))
    width = WIDTHS[size] if chosen is None else chosen
    if width < 1:
        raise RecipeError("a positive whole number is needed", where="width", found=width)
    return width


def _check_kernel(kernel_size: int) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise RecipeError("the kernel must have a middle", where="kernel_size", found=kernel_size, expected="odd")


def _require_statistics(image: Tensor) -> None:
    """The group norm of the bottom level takes statistics of each channel's map, which one pixel does not have."""
    height, width = image.shape[-2:]
    if height < 32 and width < 32:
        raise RecipeError(
            "mednext cannot take images of this size: its deepest maps would be single pixels",
            where="data.image_size",
            found=f"{height} x {width}",
            expected="at least 32 in one of the sides",
        )
