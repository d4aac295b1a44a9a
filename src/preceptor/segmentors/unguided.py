"""The report-free student of TextFreeKD: the teacher without its cross-attention to the report."""

from collections.abc import Sequence

from preceptor.segmentors.base import Size, check_classes
from preceptor.segmentors.convnext import ImageEncoder, dimensions
from preceptor.segmentors.guide_network import GuideDecoder, GuideNetwork, SelfGuideLayer


class Unguided(GuideNetwork):
    """Segments from the image alone; it has no text parameter, and a condition given to it changes nothing.

    size: the dial; widths, depths: of the four stages in place of the dial's. head_width: channels of the sub-pixel
    head. layer_scale, drop_path, pretrained: as in `ImageEncoder`. deep_supervision: side heads. transposed: for
    weights of the original code. With size "base" and 3 channels 38,034,578 parameters, as published.
    Raises RecipeError for impossible dimensions.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        widths: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        head_width: int = 24,
        layer_scale: float = 1e-6,
        drop_path: float = 0.0,
        deep_supervision: bool = False,
        transposed: bool = False,
        pretrained: str | None = None,
    ) -> None:
        check_classes(in_channels, classes)
        widths, depths = dimensions(size, widths, depths)
        encoder = ImageEncoder(
            in_channels, widths, depths, layer_scale=layer_scale, drop_path=drop_path, pretrained=pretrained
        )
        decoder = GuideDecoder(
            widths,
            classes,
            lambda index, width: SelfGuideLayer(width),
            head_width=head_width,
            deep_supervision=deep_supervision,
        )
        super().__init__(encoder, decoder, in_channels=in_channels, classes=classes, transposed=transposed)
