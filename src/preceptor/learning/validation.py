"""The validation score that chooses the best epoch: foreground Dice at the network's size, over all processes."""

from collections.abc import Callable
from typing import Any

import torch

from preceptor.data.loading import Batch, EvaluationLoader
from preceptor.learning.losses import IGNORED
from preceptor.learning.privilege import none
from preceptor.learning.tasks import Distilled, Supervised, answer
from preceptor.segmentors.base import probabilities


class Validation:
    """Called with a task, gives loss and three kinds of Dice of its network on the validation cases.

    dice_pooled: pixels of all cases counted together, mean over foreground classes (TextFreeKD, LanGuide).
    dice_image_mean: mean over cases and foreground classes; a correct rejection counts 1 (C2FVL's validation).
    dice_batch_mean: mean over batches of `batch_dice` (SIKD's validation), so that it depends on the batch size.
    """

    def __init__(self, fabric: Any, loader: EvaluationLoader, ready: Callable[[Batch], Batch]) -> None:
        self.fabric, self.loader, self.ready = fabric, loader, ready

    @torch.no_grad()
    def __call__(self, task: Supervised | Distilled) -> dict[str, float]:
        network = task.network
        network.eval()
        classes = network.classes
        overlap = torch.zeros(classes, dtype=torch.float64)
        total = torch.zeros(classes, dtype=torch.float64)
        scores = torch.zeros(5, dtype=torch.float64)  # sum of Dice, its count, sums over batches of loss and Dice
        view = task.view if isinstance(task, Supervised) else none
        for index, batch in enumerate(self.loader):
            if index % self.fabric.world_size != self.fabric.global_rank:
                continue
            batch = self.ready(batch)
            assert batch.mask is not None
            with self.fabric.autocast():
                logits = answer(network, view, batch).logits
            inter, size = overlap_counts(logits, batch.mask, classes)
            overlap += inter.sum(0)
            total += size.sum(0)
            dice = torch.where(size > 0, 2 * inter / size.clamp_min(1), 1.0)[:, 1:]
            scores[0] += dice.sum()
            scores[1] += dice.numel()
            scores[2] += task.loss(logits, batch.mask).item()
            scores[3] += batch_dice(inter, size)
            scores[4] += 1
        overlap, total, scores = self._over_processes(overlap, total, scores)
        task.train()
        pooled = (2 * overlap[1:] / total[1:].clamp_min(1))[total[1:] > 0]
        return {
            "loss": (scores[2] / scores[4].clamp_min(1)).item(),
            "dice_pooled": pooled.mean().item() if len(pooled) else 0.0,
            "dice_image_mean": (scores[0] / scores[1].clamp_min(1)).item(),
            "dice_batch_mean": (scores[3] / scores[4].clamp_min(1)).item(),
        }

    def _over_processes(self, *values: torch.Tensor) -> list[torch.Tensor]:
        if self.fabric.world_size == 1:
            return list(values)
        device = self.fabric.device
        return [self.fabric.all_reduce(value.to(device), reduce_op="sum").cpu() for value in values]


def batch_dice(overlap: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """The mean over foreground classes of the Dice of a batch's pixels together; a class that is in neither counts 0.

    overlap, size: [B, C] of `overlap_counts`. Source: specification of SIKD, section 7.
    """
    return (2 * overlap.sum(0) / (size.sum(0) + 1e-8))[1:].mean()


def overlap_counts(logits: torch.Tensor, mask: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Per case and class, in float64 [B, C]: pixels in both, and pixels of prediction plus reference.

    Pixels whose label is to be ignored count neither way.
    """
    predicted = probabilities(logits).argmax(1)
    valid = mask != IGNORED
    inter, size = (torch.zeros(len(mask), classes, dtype=torch.float64) for _ in range(2))
    for index in range(classes):
        found, wanted = (predicted == index) & valid, mask == index
        inter[:, index] = (found & wanted).sum((1, 2)).cpu()
        size[:, index] = (found.sum((1, 2)) + wanted.sum((1, 2))).cpu()
    return inter, size
