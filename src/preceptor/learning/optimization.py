"""Optimiser and learning rate of a training."""

import math
from typing import Any

import torch
from torch import nn

from preceptor.recipe import TrainingRecipe

POLY_POWER = 0.9


def learning_rate(settings: TrainingRecipe, epoch: int, share: float) -> float:
    """From lr to min_lr by the recipe's schedule, after a linear warm-up within epochs.

    cosine: stepped once an epoch (textfreekd.md, section 7). restarts: a cosine that begins anew every
    `restart_epochs`, likewise (c2fvl.md, section 6; SGDR, arXiv 1608.03983, with periods of one length). poly: power
    0.9, at every step (the schedule of TransUNet, MISSFormer and OpenMMLab's segmentors). step: times `factor` from
    each of `milestones` on (sikd.md, section 6). share: how much of the epoch is done, 0..1.
    """
    now = epoch + share
    if now < settings.warmup_epochs:
        return settings.lr * max(now, 1e-3) / settings.warmup_epochs
    length = settings.schedule_epochs or settings.epochs
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        return settings.lr * settings.factor ** sum(epoch >= milestone for milestone in settings.milestones)
    if settings.schedule == "restarts":
        left = 0.5 * (1 + math.cos(math.pi * (epoch % settings.restart_epochs) / settings.restart_epochs))
    elif settings.schedule == "poly":
        left = (1 - min(now / length, 1.0)) ** POLY_POWER
    else:
        left = 0.5 * (1 + math.cos(math.pi * min(epoch / length, 1.0)))
    return settings.min_lr + (settings.lr - settings.min_lr) * left


def make_optimizer(settings: TrainingRecipe, parameters: list[nn.Parameter], device: torch.device) -> Any:
    """AdamW, Adam, or SGD with momentum over `parameters`."""
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    fused = device.type in ("cpu", "cuda")  # one pass over the weights: 0.4 of the time
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=settings.momentum, fused=fused, **common)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, fused=fused, **common)
