"""Swin UNETR in two dimensions (Hatamizadeh et al. 2022, arXiv 2201.01266): MONAI's network with its features shown.

The stages of the Swin transformer are run here over MONAI's blocks, since MONAI's own loop over them needs one more
library (einops) for turning maps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from preceptor.errors import RecipeError
from preceptor.extras import require_extra
from preceptor.segmentors.base import Segmentation, Segmentor, Size, Tap, check_classes, require_divisible

FEATURES: dict[str, int] = {"tiny": 12, "small": 24, "base": 48}
"""Size to the channels of the first stage (MONAI's feature_size)."""


class SwinUNETR(Segmentor):
    """A Swin transformer encoder whose maps, after a convolution block each, feed a U-shaped decoder.

    feature_size: channels of the first stage in place of the dial's, a multiple of 12. depths: blocks of the four
    stages; heads: attention heads of each, a divisor of its width. window_size: side of the attention windows.
    drop_path: stochastic depth of the last block, the others in proportion.

    "base" and "small" are the seed's two: with 1 channel and 9 classes 25,138,323 and 6,302,403 parameters. Patch
    merging is MONAI's default. Sides are multiples of 32, and one exceeds 32. The relative position indices are
    computed, not stored. Raises RecipeError for impossible options, UserError where MONAI is missing.
    Source: specs of segmentors, section 5.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        size: Size = "base",
        *,
        feature_size: int | None = None,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        require_extra("monai", "monai", "the segmentor swin_unetr")
        from monai.networks.nets import SwinUNETR as Library

        width = _width(size, feature_size)
        check_classes(in_channels, classes)
        _check(width, depths, heads, window_size, drop_path)
        self.in_channels, self.classes, self.divisor = in_channels, classes, 32
        with torch.device("cpu"):  # MONAI computes numbers while it builds, which the meta device cannot
            network = Library(
                in_channels=in_channels,
                out_channels=classes,
                feature_size=width,
                depths=tuple(depths),
                num_heads=tuple(heads),
                window_size=window_size,
                dropout_path_rate=drop_path,
                spatial_dims=2,
            )
        network.to(torch.get_default_device())
        self.swinViT = network.swinViT
        self.encoder1, self.encoder2, self.encoder3 = network.encoder1, network.encoder2, network.encoder3
        self.encoder4, self.encoder10 = network.encoder4, network.encoder10
        self.decoder5, self.decoder4, self.decoder3 = network.decoder5, network.decoder4, network.decoder3
        self.decoder2, self.decoder1, self.out = network.decoder2, network.decoder1, network.out
        for part in self.swinViT.modules():
            index = dict(part.named_buffers(recurse=False)).get("relative_position_index")
            if index is not None:
                del part.relative_position_index
                part.register_buffer("relative_position_index", index, persistent=False)
        encoder = [("encoder1", 1), ("encoder2", 2), ("hidden1", 4), ("encoder3", 4), ("hidden2", 8), ("encoder4", 8)]
        encoder += [("hidden3", 16), ("hidden4", 32), ("encoder10", 32)]
        self.taps = (
            Tap("hidden0", width, 2, "stem"),
            *(Tap(name, width * max(1, stride // 2), stride, "encoder") for name, stride in encoder),
            *(Tap(f"decoder{k}", width * max(1, (1 << k) // 4), 1 << k - 1, "decoder") for k in (5, 4, 3, 2, 1)),
        )

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """As the base says. `hidden0` to `hidden4`: the normalised maps of patch embedding and stages; `encoder...`:
        the convolution blocks on them, by MONAI's names."""
        require_divisible(image, self.divisor, "swin_unetr")
        _require_statistics(image)
        hidden = self._hidden(image)
        features = {f"hidden{k}": feature for k, feature in enumerate(hidden)}
        features["encoder1"] = self.encoder1(image)
        features["encoder2"] = self.encoder2(hidden[0])
        features["encoder3"] = self.encoder3(hidden[1])
        features["encoder4"] = self.encoder4(hidden[2])
        features["encoder10"] = self.encoder10(hidden[4])
        features["decoder5"] = self.decoder5(features["encoder10"], hidden[3])
        features["decoder4"] = self.decoder4(features["decoder5"], features["encoder4"])
        features["decoder3"] = self.decoder3(features["decoder4"], features["encoder3"])
        features["decoder2"] = self.decoder2(features["decoder3"], features["encoder2"])
        features["decoder1"] = self.decoder1(features["decoder2"], features["encoder1"])
        return Segmentation(self.out(features["decoder1"]), features)

    def _hidden(self, image: Tensor) -> list[Tensor]:
        """The patch embedding and the four stages' maps, each normalised over its channels, [B, C, H, W]."""
        swin = self.swinViT
        current = swin.pos_drop(swin.patch_embed(image)).permute(0, 2, 3, 1)
        maps = [current]
        stage: Any
        for (stage,) in (swin.layers1, swin.layers2, swin.layers3, swin.layers4):
            mask = shift_mask(current.shape[1:3], stage.window_size, stage.shift_size, current.device)
            for block in stage.blocks:
                current = block(current, mask)
            current = stage.downsample(current)
            maps.append(current)
        return [functional.layer_norm(one, one.shape[-1:]).permute(0, 3, 1, 2) for one in maps]


def shift_mask(sides: Sequence[int], windows: Sequence[int], shifts: Sequence[int], device: torch.device) -> Tensor:
    """What is added to the attention in shifted windows: 0 within a region of the map, -100 between regions.

    sides: of the map; windows, shifts: of the stage, where the map is larger. [windows, tokens, tokens] for the map
    padded to whole windows.
    """
    regions = []
    for side, window, shift in zip(sides, windows, shifts, strict=True):
        if side <= window:  # one window, which is not shifted
            regions.append(torch.zeros(1, side, device=device))
            continue
        padded = -(-side // window) * window
        place = torch.arange(padded, device=device)
        region = (place >= padded - window).float() + (place >= padded - shift).float()
        regions.append(region.view(-1, window))
    rows, columns = regions
    both = 3 * rows[:, None, :, None] + columns[None, :, None, :]
    tokens = both.reshape(len(rows) * len(columns), -1)
    return -100.0 * (tokens[:, None, :] != tokens[:, :, None]).float()


def _width(size: Size, feature_size: int | None) -> int:
    if size not in FEATURES:
        raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(FEATURES))
    width = FEATURES[size] if feature_size is None else feature_size
    if width < 12 or width % 12:
        raise RecipeError(
            "impossible width of Swin UNETR", where="feature_size", found=width, expected="a multiple of 12"
        )
    return width


def _check(
    width: int,
    depths: Sequence[int],
    heads: Sequence[int],
    window_size: int,
    drop_path: float,
) -> None:
    for name, values in (("depths", depths), ("heads", heads)):
        if len(values) != 4 or not all(isinstance(value, int) and value > 0 for value in values):
            raise RecipeError("four positive whole numbers are needed", where=name, found=list(values))
    wrong = [f"{count} heads of {width << k} channels" for k, count in enumerate(heads) if (width << k) % count]
    if wrong:
        raise RecipeError("the widths are not divisible by the attention heads", where="heads", offenders=wrong)
    if window_size < 2:
        raise RecipeError("the windows are too small", where="window_size", found=window_size, expected="2 or more")
    if not 0 <= drop_path < 1:
        raise RecipeError("out of range", where="drop_path", found=drop_path, expected="0 to below 1")


def _require_statistics(image: Tensor) -> None:
    """The instance norm of the deepest maps takes statistics of each, which a single pixel does not have."""
    height, width = image.shape[-2:]
    if height < 64 and width < 64:
        raise RecipeError(
            "swin_unetr cannot take images of this size: its deepest maps would be single pixels",
            where="data.image_size",
            found=f"{height} x {width}",
            expected="at least 64 in one of the sides",
        )
