"""Pictures drawn by a diffusion U-Net, to look at: DDIM (Song 2021, arXiv 2010.02502), always from the same noise."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from preceptor.segmentors.diffusion import STEPS, DiffusionShape, NoiseSchedule

GAP = 2
"""White pixels between the pictures of a grid."""


def draw_samples(
    predict: Callable[[Tensor, Tensor], Tensor], shape: DiffusionShape, count: int, steps: int, seed: int
) -> Tensor:
    """float32 [count, C, side, side] in [-1, 1], on the CPU.

    predict: (noisy [B, C, H, W], timesteps [B]) -> the noise in it. steps: of the sampler, from 1 to 1000.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(STEPS, trained_betas=NoiseSchedule.linear().betas.tolist(), timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    side = shape.image_size
    pictures = torch.randn(count, shape.channels, side, side, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            noise = predict(pictures, timestep.expand(count)).cpu()
            pictures = scheduler.step(noise, int(timestep), pictures).prev_sample
    return pictures.clamp(-1, 1)


def picture_grid(pictures: Tensor) -> np.ndarray:
    """Pictures [N, C, H, W] in [-1, 1] side by side: uint8 [h, w] of one channel, [h, w, 3] of three."""
    count, channels, height, width = pictures.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), 255, np.uint8)
    for number, picture in enumerate(((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()):
        top, left = (at * (length + GAP) for at, length in zip(divmod(number, columns), (height, width), strict=True))
        grid[top : top + height, left : left + width] = picture.transpose(1, 2, 0)
    return grid[..., 0] if channels == 1 else grid
