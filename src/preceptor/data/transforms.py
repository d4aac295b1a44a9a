"""From a stored picture to the array a network is shown: channels, clipping, scale, one resize.

The same object prepares images for training and, from a package, for inference. With `antialias=False`, "bicubic" and
"zscore" it is TextFreeKD's and LanGuide's preparation, row-major instead of transposed (spec textfreekd.md section 7).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from preceptor.data.intensity import Scale, scale_of, volume_scale
from preceptor.data.readers import Picture
from preceptor.errors import DataError, StorageError
from preceptor.recipe_data import DataRecipe, Normalisation

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601, as the PNG and JPEG libraries use)."""

FLAT = 1e-6
"""A channel whose standard deviation is below this share of its largest value is constant up to float32 rounding."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of a network.

    size: (height, width) in pixels. channels: 1 or 3 convert grey and colour into each other; any other number must be
    what the file has. resize, antialias: interpolation, and whether it smooths when it reduces. clip: (low, high) that
    stored values are cut off at. normalize: "zscore" (after the resize, each channel to mean 0 and population standard
    deviation 1; a constant channel gives 0); "unit" (the clip's range, else unsigned integers by the range of their
    type, everything else by the picture's own range, to 0..1); "symmetric" (0..1, or the clip's or the unsigned type's
    range, to -1..1, as MISSFormer; other values by the same factor); "none" (values as they are); or by the whole
    volume that the picture is a slice of, before the resize, as `intensity.scale_of` tells. Other pictures are their
    own volume.
    """

    size: tuple[int, int]
    channels: int = 3
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    normalize: Normalisation = "zscore"
    clip: tuple[float, float] | None = None

    @property
    def by_volume(self) -> bool:
        """Whether a slice's values depend on the other slices of its volume."""
        return self.normalize.startswith("volume_")

    @classmethod
    def from_recipe(cls, data: DataRecipe) -> "Preprocessing":
        """The preprocessing that a recipe asks for."""
        clip = None if data.clip is None else (data.clip[0], data.clip[1])
        return cls(data.size, data.channels, data.resize, data.antialias, data.normalize, clip)

    def apply(self, picture: Picture, where: object = None) -> Tensor:
        """The picture as float32 [channels, height, width].

        picture: pixels [H, W] or [H, W, C] of any integer or float type. where: named in errors.
        Raises DataError for NaN or infinite pixels and for channels that cannot be converted.
        """
        image = self._to_channels(np.asarray(picture.pixels), where)
        if self.clip is not None:
            image = image.clamp(*self.clip)
        if self.normalize == "unit" and self.clip is None:
            image = _to_unit(image, picture.pixels.dtype)
        elif self.normalize == "symmetric":
            low, high = self.clip or _nominal_range(picture.pixels.dtype)
            image = Scale((low + high) / 2, (high - low) / 2).apply(image)
        elif self.normalize not in ("none", "zscore"):
            image = self._scale(picture, where).apply(image)
        if image.shape[-2:] != self.size:
            image = F.interpolate(
                image[None], self.size, mode=self.resize, align_corners=False, antialias=self.antialias
            )[0]
        return _standardise(image) if self.normalize == "zscore" else image

    def _scale(self, picture: Picture, where: object) -> Scale:
        if self.normalize == "unit":
            assert self.clip is not None
            return Scale(self.clip[0], self.clip[1] - self.clip[0])
        if picture.volume is not None:
            return volume_scale(picture.volume, self.normalize, self.clip)
        return scale_of(picture.pixels, self.normalize, self.clip, where)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back. What the first version did not know is there if set."""
        content = asdict(self) | {"size": list(self.size)}
        clip = content.pop("clip")
        return content if clip is None else content | {"clip": list(clip)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Preprocessing":
        """The preprocessing in a package. Raises StorageError for missing, unknown or impossible settings."""
        names = {field.name for field in fields(cls)}
        try:
            size = tuple(int(side) for side in content["size"])
            clip = content.get("clip")
            result = cls(**{**content, "size": size, "clip": None if clip is None else tuple(map(float, clip))})
            valid = (
                len(size) == 2
                and min(size) > 0
                and result.channels > 0
                and result.resize in ("bicubic", "bilinear")
                and result.normalize in get_args(Normalisation)
                and isinstance(result.antialias, bool)
                and (result.clip is None or (len(result.clip) == 2 and result.clip[0] < result.clip[1]))
            )
        except (KeyError, TypeError, ValueError):
            valid = False
        if not valid:
            raise StorageError(
                "the preprocessing is not one that this version understands",
                found=dict(content),
                expected=f"valid values of {', '.join(sorted(names))}",
                remedy="use the version of the library that wrote it, or write it again",
            )
        return result

    def _to_channels(self, pixels: np.ndarray, where: object) -> Tensor:
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.ndim != 3 or 0 in pixels.shape:
            raise DataError("this is not a two-dimensional picture", where=where, found=f"an array of {pixels.shape}")
        if pixels.dtype.kind not in "buif":
            raise DataError("the pixels are not numbers", where=where, found=pixels.dtype)
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))
        if pixels.dtype.kind == "f" and not bool(torch.isfinite(image).all()):
            raise DataError(
                "the image has pixels that are not finite numbers",
                where=where,
                found=f"{int((~torch.isfinite(image)).sum())} of {image.numel()} are NaN or infinite",
                remedy="export the image again, or remove the case",
            )
        count = image.shape[0]
        if count == self.channels:
            return image
        if count == 4 and self.channels in (1, 3):  # the fourth is opacity
            image, count = image[:3], 3
        if count == 3 and self.channels == 1:
            return torch.einsum("chw,c->hw", image, torch.tensor(LUMA))[None]
        if count == 1:
            return image.expand(self.channels, -1, -1)
        if count == self.channels:
            return image
        raise DataError(
            "the image has a number of channels that cannot be converted",
            where=where,
            found=f"{count} channels",
            expected=f"{self.channels}, or 1",
            remedy="set data.channels in the recipe to what the files have",
        )


def is_grey(pixels: np.ndarray) -> bool:
    """Whether a picture [H, W] or [H, W, C] shows the same in each of its colour channels."""
    if pixels.ndim == 2 or pixels.shape[-1] == 1:
        return True
    return pixels.shape[-1] in (3, 4) and bool((pixels[..., :1] == pixels[..., 1:3]).all())


def _nominal_range(dtype: np.dtype) -> tuple[float, float]:
    """What a type of pixels spans: unsigned integers all their values, others 0 to 1."""
    return (0.0, float(np.iinfo(dtype).max)) if dtype.kind == "u" else (0.0, 1.0)


def _to_unit(image: Tensor, dtype: np.dtype) -> Tensor:
    if dtype.kind == "b":
        return image
    if dtype.kind == "u":
        return image / float(np.iinfo(dtype).max)
    low, high = image.min(), image.max()
    return (image - low) / torch.where(high > low, high - low, torch.ones(()))


def _standardise(image: Tensor) -> Tensor:
    mean = image.mean(dim=(1, 2), keepdim=True)
    deviation = image.std(dim=(1, 2), correction=0, keepdim=True)
    flat = deviation <= FLAT * image.abs().amax(dim=(1, 2), keepdim=True)
    return torch.where(flat, 0.0, (image - mean) / torch.where(flat, 1.0, deviation))
