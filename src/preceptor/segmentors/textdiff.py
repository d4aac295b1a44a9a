"""TextDiff (Feng, MICCAI 2024, arXiv 2407.05323): a pixel classifier on frozen diffusion features, guided by reports.

Only the classifier learns and is stored; the diffusion U-Net stays in its own file, of which a network keeps path and
hash. Features that were computed before can be given in place of images. Source: specs of TextDiff.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from preceptor.errors import RecipeError, StorageError
from preceptor.segmentors.base import Condition, Segmentation, Segmentor, Size, Tap, check_classes, require_divisible
from preceptor.segmentors.diffusion import SHAPES, DiffusionFeatures, DiffusionShape, frozen_features, read_diffusion
from preceptor.segmentors.pixel_classifier import PixelClassifier, Text
from preceptor.storage import hash_file, hash_json, hash_tensors

BLOCKS: dict[str, tuple[int, ...]] = {"monuseg": (6, 8, 12, 16), "qata": (4, 6, 8, 12)}
"""Decoder blocks that the paper taps for each data set, of the published U-Net's 18."""

STEPS = (50, 150, 250)
"""Timesteps whose features are joined."""

DIAL: dict[str, tuple[str, int, int, int, tuple[int, int]]] = {
    "tiny": ("tiny", 64, 2, 32, (32, 16)),
    "small": ("small", 256, 4, 64, (64, 32)),
    "base": ("imagenet256", 768, 8, 64, (128, 32)),
}
"""Size to the U-Net's shape, and the classifier's width, heads, channels a head and decoder widths."""


class TextDiffFree(Segmentor):
    """TextDiff without its text: classifies each pixel by the frozen U-Net's features of the image alone.

    Images are expected in [-1, 1]. diffusion: file of the frozen U-Net's weights (`diffusion.write_diffusion`); left
    out, a U-Net of the dial's shape with random weights that are always the same, which is of use for tests alone.
    diffusion_hash: what the file's SHA-256 must be, which packages tell. blocks: decoder blocks to tap, "monuseg" or
    "qata" for those of the paper; left out, the last at each stride from 8 to 1, and "monuseg" on the published shape.
    steps, noise_seed: timesteps, and the seed of the noise that all images share. bgr: the U-Net is shown blue first,
    as the original does. width, heads, head_width, decoder_widths, hierarchical, independent: of the classifier, see
    `PixelClassifier`.

    Taps: fused0, fused1, ... (each scale after fusion, deep to shallow), decoder0 and decoder1 at stride 1.
    Raises RecipeError for impossible options, StorageError for a file that is missing or another, UserError where
    diffusers is missing.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        diffusion: str | None = None,
        diffusion_hash: str | None = None,
        blocks: Literal["monuseg", "qata"] | Sequence[int] | None = None,
        steps: Sequence[int] = STEPS,
        noise_seed: int = 40,
        bgr: bool = False,
        width: int | None = None,
        heads: int | None = None,
        head_width: int | None = None,
        decoder_widths: Sequence[int] | None = None,
        independent: bool = False,
    ) -> None:
        super().__init__()
        check_classes(in_channels, classes)
        frozen = _frozen(size, in_channels, diffusion, diffusion_hash, blocks, steps, noise_seed)
        if bgr and in_channels != 3:
            raise RecipeError("only images of three channels have an order of colours", where="bgr", found=in_channels)
        # A tuple, so that the U-Net is in no state dict, no optimiser and no count of parameters.
        self._frozen = (frozen,)
        self._file = None if diffusion is None else Path(diffusion).resolve()
        self.in_channels, self.classes, self.divisor, self.bgr = in_channels, classes, frozen.shape.divisor, bgr
        _, *dial = DIAL[size]
        given = {"width": width, "heads": heads, "head_width": head_width, "decoder_widths": decoder_widths}
        options = dict(zip(given, dial, strict=True)) | {name: own for name, own in given.items() if own is not None}
        self.classifier = self._classifier({**options, "independent": independent})
        decoded = (self.classifier.refine.in_channels, self.classifier.refine.out_channels)
        self.taps = (
            *(Tap(f"fused{scale}", self.classifier.width, stride) for scale, stride in enumerate(frozen.strides)),
            *(Tap(f"decoder{number}", channels, 1) for number, channels in enumerate(decoded)),
        )

    def _classifier(self, options: dict[str, Any]) -> PixelClassifier:
        return PixelClassifier(self.frozen.widths, self.classes, text="none", **options)

    @property
    def frozen(self) -> DiffusionFeatures:
        """The frozen U-Net: image -> the classifier's input maps."""
        return self._frozen[0]

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> "TextDiffFree":
        """The U-Net goes where the classifier goes."""
        self.frozen._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def pinned(self) -> dict[str, Any]:
        """The file of the U-Net, if there is one."""
        if self._file is None:
            return {}
        return {"diffusion": str(self._file), "diffusion_hash": hash_file(self._file)}

    def frozen_maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """image: [B, in_channels, H, W] -> the frozen maps [B, C_k, h_k, w_k], float32, without gradient.

        They depend on nothing that learns, so they may be kept. Raises RecipeError for a size that does not fit.
        """
        require_divisible(image, self.divisor, "TextDiff")
        if image.shape[1] == 1:
            image = image.expand(-1, self.frozen.shape.channels, -1, -1)
        return self.frozen(image.flip(1) if self.bgr else image)

    def frozen_shapes(self, size: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
        """As the base says."""
        known = zip(self.frozen.widths, self.frozen.strides, strict=True)
        return tuple((width, size[0] // stride, size[1] // stride) for width, stride in known)

    def frozen_identity(self) -> str:
        """Of the U-Net's weights and shape, its blocks and steps, the noise, and the order of colours."""
        return self._identity

    @cached_property
    def _identity(self) -> str:
        frozen = self.frozen
        tensors = hash_tensors(dict(frozen.named_parameters()) | dict(frozen.named_buffers()))
        return hash_json(["textdiff", tensors, asdict(frozen.shape), frozen.blocks, frozen.steps, self.bgr])

    def classify(
        self, maps: Sequence[Tensor], condition: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Segmentation:
        """maps: as `frozen_maps` gives them, in any precision; size: (H, W) of the image, read off them if left out."""
        if size is None:
            stride = self.frozen.strides[-1]
            size = (maps[-1].shape[2] * stride, maps[-1].shape[3] * stride)
        kept = [part.to(self.classifier.join.weight.dtype) for part in maps]
        found = self.classifier(kept, condition, size)
        features = {f"fused{scale}": fused for scale, fused in enumerate(found.fused)}
        features |= {f"decoder{number}": decoded for number, decoded in enumerate(found.decoded)}
        return Segmentation(found.logits, features)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """As the base says."""
        return self.classify(self.frozen_maps(image), None, (image.shape[2], image.shape[3]))


class TextDiff(TextDiffFree):
    """Segments from the image's frozen diffusion features and the report's tokens [B, length, width].

    text: "attention" as published, "concat" for the report's mean beside every pixel. hierarchical: attention blocks
    of its own for each scale. contrastive: weight of the alignment of image and report in `own_losses`, 0 for none;
    it needs reports as wide as the classifier. Other options as in `TextDiffFree`.
    """

    privileged: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        size: Size = "base",
        *,
        condition: Condition,
        text: Text = "attention",
        hierarchical: bool = False,
        contrastive: float = 0.0,
        diffusion: str | None = None,
        diffusion_hash: str | None = None,
        blocks: Literal["monuseg", "qata"] | Sequence[int] | None = None,
        steps: Sequence[int] = STEPS,
        noise_seed: int = 40,
        bgr: bool = False,
        width: int | None = None,
        heads: int | None = None,
        head_width: int | None = None,
        decoder_widths: Sequence[int] | None = None,
        independent: bool = False,
    ) -> None:
        if condition.kind != "report":
            raise RecipeError("TextDiff reads reports", where="condition", found=condition.kind, expected="report")
        if text == "none":
            raise RecipeError(
                "TextDiff without its text is a segmentor of its own",
                where="text",
                found=text,
                remedy="choose the segmentor textdiff_free, which needs the image alone",
            )
        self._reading: dict[str, Any] = {"text": text, "text_width": condition.width, "hierarchical": hierarchical}
        super().__init__(
            in_channels,
            classes,
            size,
            diffusion=diffusion,
            diffusion_hash=diffusion_hash,
            blocks=blocks,
            steps=steps,
            noise_seed=noise_seed,
            bgr=bgr,
            width=width,
            heads=heads,
            head_width=head_width,
            decoder_widths=decoder_widths,
            independent=independent,
        )
        if contrastive and condition.width != self.taps[0].channels:
            raise RecipeError(
                "image and report can be aligned only where they are equally wide",
                where="contrastive",
                found=f"report {condition.width}, classifier {self.taps[0].channels}",
                remedy=f"set the option width to {condition.width}, or contrastive to 0",
            )
        self.condition, self.contrastive = condition, contrastive

    def _classifier(self, options: dict[str, Any]) -> PixelClassifier:
        return PixelClassifier(self.frozen.widths, self.classes, **options, **self._reading)

    def classify(
        self, maps: Sequence[Tensor], condition: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Segmentation:
        """condition: [B, length, width]; the rest as in `TextDiffFree`. Raises ValueError without a condition.

        `Segmentation.aligned`, where `contrastive` asks for it: the means of the fused pixels (of each scale, then of
        the scales) and of the report's tokens, each [B, width, 1, 1].
        """
        if condition is None:
            raise ValueError("TextDiff needs the report's token features [B, length, width]")
        found = super().classify(maps, condition, size)
        if not self.contrastive:
            return found
        scales = [found.features[tap.name].float().mean((2, 3)) for tap in self.taps if tap.name.startswith("fused")]
        means = (torch.stack(scales).mean(0), condition.float().mean(1))
        return found._replace(aligned=tuple(mean[:, :, None, None] for mean in means))

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """condition: [B, length, width] report features; the rest as in the base."""
        return self.classify(self.frozen_maps(image), condition, (image.shape[2], image.shape[3]))

    def own_losses(self, found: Segmentation) -> dict[str, Tensor]:
        """ "alignment": `contrastive` * (1 - cosine of image and report), mean over the batch."""
        if not found.aligned:
            return {}
        image, report = (mean.flatten(1) for mean in found.aligned)
        return {"alignment": self.contrastive * (1 - functional.cosine_similarity(image, report)).mean()}


def _frozen(
    size: str,
    in_channels: int,
    diffusion: str | None,
    expected: str | None,
    blocks: str | Sequence[int] | None,
    steps: Sequence[int],
    seed: int,
) -> DiffusionFeatures:
    if size not in DIAL:
        raise RecipeError("there is no such size", where="size", found=size, expected=", ".join(DIAL))
    if diffusion is None:
        shape = SHAPES[DIAL[size][0]]
        if in_channels not in (1, shape.channels):
            shape = DiffusionShape(**{**vars(shape), "channels": in_channels})
        return frozen_features(shape, _blocks(blocks, shape), steps, seed)
    shape, _ = read_diffusion(diffusion)
    if expected is not None and (known := hash_file(diffusion)) != expected:
        raise StorageError(
            "the diffusion U-Net is not the one that the classifier was trained on",
            where=diffusion,
            found=f"SHA-256 {known}",
            expected=f"SHA-256 {expected}",
        )
    if in_channels not in (1, shape.channels):
        raise RecipeError(
            "the diffusion U-Net takes another number of channels",
            where="data.channels",
            found=in_channels,
            expected=f"{shape.channels}, or 1",
        )
    return frozen_features(diffusion, _blocks(blocks, shape), steps, seed)


def _blocks(chosen: str | Sequence[int] | None, shape: DiffusionShape) -> tuple[int, ...]:
    if chosen is None and shape.blocks == SHAPES["imagenet256"].blocks:
        return BLOCKS["monuseg"]
    if chosen is None:
        last = {shape.stride(block): block for block in range(shape.blocks)}
        return tuple(sorted(block for stride, block in last.items() if stride <= 8))
    if isinstance(chosen, str):
        if chosen not in BLOCKS:
            raise RecipeError("there is no such set", where="blocks", found=chosen, expected=", ".join(BLOCKS))
        return BLOCKS[chosen]
    return tuple(chosen)
