"""The frozen unconditional diffusion U-Net whose decoder TextDiff reads, on diffusers' `UNet2DModel`.

Guided diffusion's ImageNet 256x256 network (Dhariwal and Nichol 2021, arXiv 2105.05233) is the shape `imagenet256`;
any smaller one is a `DiffusionShape`. Source: specs of TextDiff, sections 2 to 4.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from preceptor.errors import RecipeError, StorageError
from preceptor.extras import require_extra
from preceptor.segmentors.pretrained import start_from
from preceptor.storage import read_tensors, write_tensors

STEPS = 1000
"""Steps of the noise schedule; a timestep is an integer from 0 to 999."""


@dataclass(frozen=True)
class DiffusionShape:
    """Everything that the U-Net's structure depends on.

    image_size: side that it is trained on, a multiple of `divisor`. channels: of its images. widths: of each level,
    full resolution first. layers: residual blocks a level (the decoder has one more). attention: levels that attend to
    themselves, as the middle always does. head_width: channels of an attention head. groups: of every group norm.
    learn_sigma: two output channels an image channel, noise and variance. Raises RecipeError for impossible values.
    """

    image_size: int = 256
    channels: int = 3
    widths: tuple[int, ...] = (256, 256, 512, 512, 1024, 1024)
    layers: int = 2
    attention: tuple[int, ...] = (3, 4, 5)
    head_width: int = 64
    groups: int = 32
    learn_sigma: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "attention", tuple(self.attention))
        attending = {self.widths[level] for level in self.attention if 0 <= level < self.levels} | {self.widths[-1]}
        faults = [f"widths {width}: no multiple of groups" for width in set(self.widths) if width % self.groups]
        faults += [f"widths {width}: no multiple of head_width" for width in attending if width % self.head_width]
        faults += [f"attention {level}: no such level" for level in self.attention if not 0 <= level < self.levels]
        if self.image_size < 1 or self.image_size % self.divisor:
            faults.append(f"image_size {self.image_size}: no multiple of {self.divisor}")
        if self.layers < 1 or self.channels < 1:
            faults.append(f"layers {self.layers}, channels {self.channels}: at least 1 is needed")
        if faults:
            raise RecipeError("a diffusion U-Net cannot have this shape", where="diffusion", offenders=sorted(faults))

    @property
    def levels(self) -> int:
        """How many resolutions there are."""
        return len(self.widths)

    @property
    def divisor(self) -> int:
        """What height and width of an image must be multiples of."""
        return 2 ** (self.levels - 1)

    @property
    def blocks(self) -> int:
        """How many decoder blocks there are, counted from the deepest as guided diffusion's `output_blocks`."""
        return self.levels * (self.layers + 1)

    def place(self, block: int) -> tuple[int, int]:
        """(up block, layer in it) of a decoder block."""
        return divmod(block, self.layers + 1)

    def width(self, block: int) -> int:
        """Channels of a decoder block's output."""
        return self.widths[self.levels - 1 - self.place(block)[0]]

    def stride(self, block: int) -> int:
        """Pixels of the image a pixel of the block's output; the last layer of a level enlarges."""
        up, layer = self.place(block)
        level = self.levels - 1 - up
        return 2 ** (level - 1 if layer == self.layers and level else level)


SHAPES: dict[str, DiffusionShape] = {
    "imagenet256": DiffusionShape(),
    "small": DiffusionShape(128, widths=(64, 64, 128, 128, 256), attention=(3, 4)),
    "tiny": DiffusionShape(64, widths=(32, 64, 64), layers=1, attention=(2,), head_width=32, learn_sigma=False),
}
"""Named shapes: guided diffusion's published one, and two that small machines train themselves."""


def diffusion_unet(shape: DiffusionShape, *, dropout: float = 0.0) -> Any:
    """diffusers' `UNet2DModel` of this shape, with random weights: (noisy image [B, C, H, W], timestep) -> noise.

    Raises UserError where diffusers is missing.
    """
    require_extra("diffusers", "diffusion", "a diffusion U-Net")
    from diffusers import UNet2DModel

    attends = [level in shape.attention for level in range(shape.levels)]
    return UNet2DModel(
        sample_size=shape.image_size,
        in_channels=shape.channels,
        out_channels=shape.channels * (2 if shape.learn_sigma else 1),
        block_out_channels=shape.widths,
        layers_per_block=shape.layers,
        down_block_types=tuple("AttnDownBlock2D" if here else "ResnetDownsampleBlock2D" for here in attends),
        up_block_types=tuple("AttnUpBlock2D" if here else "ResnetUpsampleBlock2D" for here in reversed(attends)),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=shape.head_width,
        norm_num_groups=shape.groups,
        attn_norm_num_groups=shape.groups,  # left out, the middle's attention has no norm
        norm_eps=1e-5,
        act_fn="silu",
        time_embedding_type="positional",
        flip_sin_to_cos=True,
        freq_shift=0,
        center_input_sample=False,
        dropout=dropout,
        add_attention=True,
    )


def write_diffusion(path: Path | str, shape: DiffusionShape, state: dict[str, Tensor]) -> None:
    """Write a whole U-Net's tensors (diffusers' names) with its shape to a safetensors file."""
    write_tensors(path, state, {"diffusion": json.dumps(asdict(shape))})


def read_diffusion(path: Path | str) -> tuple[DiffusionShape, dict[str, Tensor]]:
    """What `write_diffusion` wrote. Raises StorageError for another file."""
    if not Path(path).is_file():
        raise StorageError(
            "the diffusion U-Net's weights are not there",
            where=path,
            remedy="name a file of `preceptor pretrain-diffusion`, or of an imported checkpoint, in the segmentor's "
            "option `diffusion`",
        )
    tensors, metadata = read_tensors(path)
    try:
        shape = DiffusionShape(**json.loads(metadata["diffusion"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            "this file is no diffusion U-Net's", where=path, expected="metadata `diffusion` with its shape"
        ) from error
    return shape, tensors


@dataclass(frozen=True)
class NoiseSchedule:
    """Linear betas from 1e-4 to 0.02 over `STEPS` steps, in float64 [STEPS]; x_t = signal[t] x_0 + noise[t] e."""

    betas: NDArray[np.float64]
    kept: NDArray[np.float64]
    """Cumulative products of 1 - beta."""

    @classmethod
    def linear(cls) -> "NoiseSchedule":
        """The schedule of guided diffusion's ImageNet networks."""
        # diffusers' own is float32, whose noise at the first steps differs in the fourth digit.
        betas = np.linspace(1e-4, 0.02, STEPS, dtype=np.float64)
        return cls(betas, np.cumprod(1.0 - betas, dtype=np.float64))

    @property
    def signal(self) -> NDArray[np.float64]:
        """What is left of the image at each step."""
        return np.sqrt(self.kept)

    @property
    def noise(self) -> NDArray[np.float64]:
        """How much noise there is at each step."""
        return np.sqrt(1.0 - self.kept)


class DiffusionFeatures(nn.Module):
    """From images to the decoder's maps at several timesteps, one map a block, in one forward pass; never learns.

    blocks: numbers of decoder blocks (see `DiffusionShape.blocks`), taken in ascending order. steps: timesteps whose
    maps are joined along the channels, in this order. seed: of the noise, one standard normal picture drawn on the CPU
    that every image and every step shares; at another size than the shape's it is cut, or repeated.
    What comes after the last of the blocks is neither kept nor computed. Raises RecipeError for impossible numbers.
    """

    noise: Tensor
    timesteps: Tensor
    mix: Tensor
    time_proj: nn.Module
    time_embedding: nn.Module
    conv_in: nn.Module
    down_blocks: nn.ModuleList
    mid_block: nn.Module
    up_blocks: nn.ModuleList

    def __init__(
        self, unet: Any, shape: DiffusionShape, blocks: Sequence[int], steps: Sequence[int], seed: int
    ) -> None:
        super().__init__()
        self.shape, self.blocks, self.steps = shape, tuple(sorted(blocks)), tuple(steps)
        _check(self.blocks, "blocks", shape.blocks)
        _check(self.steps, "steps", STEPS)
        last, layer = shape.place(self.blocks[-1])
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.conv_in, self.down_blocks, self.mid_block = unet.conv_in, unet.down_blocks, unet.mid_block
        self.up_blocks = unet.up_blocks[: last + 1]
        final = unet.up_blocks[last]
        final.resnets = final.resnets[: layer + 1]
        if hasattr(final, "attentions"):
            final.attentions = final.attentions[: layer + 1]
        if layer < shape.layers:
            final.upsamplers = None
        self.requires_grad_(False).eval()
        generator = torch.Generator().manual_seed(seed)
        side, schedule = shape.image_size, NoiseSchedule.linear()
        noise = torch.randn(1, shape.channels, side, side, generator=generator, device="cpu")
        mix = np.stack([schedule.signal, schedule.noise])[:, list(self.steps)]
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("timesteps", torch.tensor(self.steps, device="cpu"), persistent=False)
        self.register_buffer("mix", torch.tensor(mix, dtype=torch.float32, device="cpu"), persistent=False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(len(self.steps) * self.shape.width(block) for block in self.blocks)

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each map."""
        return tuple(self.shape.stride(block) for block in self.blocks)

    def train(self, mode: bool = True) -> "DiffusionFeatures":
        """It stays in eval mode."""
        return super().train(False)

    def noised(self, image: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, T, C, H, W]: the image at each timestep, with the shared noise."""
        rows, columns = (torch.arange(side, device=image.device) % self.shape.image_size for side in image.shape[2:])
        noise = self.noise[:, :, rows][..., columns]
        signal, share = self.mix.view(2, 1, -1, 1, 1, 1)
        return signal * image.unsqueeze(1) + share * noise.unsqueeze(1)

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """image: [B, channels, H, W] in [-1, 1], sides multiples of the shape's divisor.

        Returns a map [B, T * width, H / stride, W / stride] for each block, float32, without gradient.
        """
        batch, count = image.shape[0], len(self.steps)
        with torch.autocast(image.device.type, enabled=image.device.type != "cpu" and torch.is_autocast_enabled()):
            found = self.tapped(self.noised(image.float()).flatten(0, 1), self.timesteps.repeat(batch))
        return tuple(maps.float().unflatten(0, (batch, count)).flatten(1, 2) for maps in found)

    def tapped(self, noisy: Tensor, timesteps: Tensor) -> tuple[Tensor, ...]:
        """noisy: [N, channels, H, W], timesteps: [N]. Returns a map [N, width, H / stride, W / stride] a block."""
        embedding = self.time_embedding(self.time_proj(timesteps).to(noisy.dtype))
        current = self.conv_in(noisy)
        skips = [current]
        for down in self.down_blocks:
            current, states = down(current, temb=embedding)
            skips += states
        current = self.mid_block(current, embedding)
        found = []
        for number, up in enumerate(cast(Any, self.up_blocks)):
            attentions = getattr(up, "attentions", None) or [None] * len(up.resnets)
            for layer, (residual, attention) in enumerate(zip(up.resnets, attentions, strict=True)):
                current = residual(torch.cat([current, skips.pop()], dim=1), embedding)
                if attention is not None:
                    current = attention(current)
                if layer == self.shape.layers and up.upsamplers is not None:
                    current = _enlarged(up.upsamplers[0], current, embedding)
                if number * (self.shape.layers + 1) + layer in self.blocks:
                    found.append(current)
        return tuple(found)


def _enlarged(block: Any, maps: Tensor, embedding: Tensor) -> Tensor:
    """What diffusers' residual block that enlarges does: [N, C, H, W] -> [N, C, 2 H, 2 W].

    Its own forward pass asks whether there are 64 images or more, which no program exported for any batch can.
    """
    scale, shift = block.time_emb_proj(functional.silu(embedding))[:, :, None, None].chunk(2, dim=1)
    branch = functional.interpolate(functional.silu(block.norm1(maps)), scale_factor=2.0, mode="nearest")
    branch = block.norm2(block.conv1(branch)) * (1 + scale) + shift
    return functional.interpolate(maps, scale_factor=2.0, mode="nearest") + block.conv2(functional.silu(branch))


def frozen_features(
    source: str | Path | DiffusionShape, blocks: Sequence[int], steps: Sequence[int], seed: int = 40
) -> DiffusionFeatures:
    """A frozen feature extractor from a weights file, or from a shape with random weights that are always the same.

    blocks, steps, seed: as in `DiffusionFeatures`. Raises StorageError for weights that do not fit their shape.
    """
    if isinstance(source, DiffusionShape):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return DiffusionFeatures(diffusion_unet(source), source, blocks, steps, seed)
    shape, tensors = read_diffusion(source)
    unet = diffusion_unet(shape)
    start_from(unet, tensors, source)
    return DiffusionFeatures(unet, shape, blocks, steps, seed)


def _check(numbers: tuple[Any, ...], name: str, limit: int) -> None:
    whole = all(isinstance(number, int) and 0 <= number < limit for number in numbers)
    if not numbers or not whole or (name == "blocks" and len(set(numbers)) < len(numbers)):
        raise RecipeError(
            f"impossible {name} of a diffusion U-Net",
            where=name,
            found=list(numbers),
            expected=f"one or more different whole numbers from 0 to {limit - 1}",
        )
