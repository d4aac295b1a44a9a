"""What one training step computes: the supervised task of teacher and control, and the distilled task of the student.

A task is a module whose forward takes a batch and returns a dictionary of scalars, "loss" among them. The frozen
teacher is held outside the module tree: it is in no state dict, no optimiser, and no gradient reaches it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from preceptor.data.loading import Batch
from preceptor.distillers.base import Distiller
from preceptor.distillers.logits import labels_at
from preceptor.errors import TrainingError
from preceptor.learning.privilege import View, none
from preceptor.segmentors.base import Segmentation, Segmentor
from preceptor.storage import hash_tensors

Loss = Callable[[Tensor, Tensor], Tensor]


def answer(network: Segmentor, view: Callable[[Batch], View], batch: Batch) -> Segmentation:
    """What a network says to the view of a batch, from kept answers of its frozen part where the batch has them."""
    image, condition = view(batch)
    if batch.frozen and image is batch.image:  # the kept answers are to this very image
        size = (image.shape[-2], image.shape[-1])
        maps = batch.frozen.get(network.frozen_identity()) if network.frozen_shapes(size) else None
        if maps is not None:
            return network.classify(maps, condition, size)
    return network(image, condition)


def loss_over_heads(loss: Loss, weights: Sequence[float], found: Segmentation, mask: Tensor) -> Tensor:
    """The weighted sum of a loss on the logits and on those of each side head; a float32 scalar.

    weights: of the logits, then of each side head. Labels [B, H, W] reach a side head's grid by nearest neighbour,
    since interpolated class numbers would be other classes.
    """
    value = weights[0] * loss(found.logits, mask)
    for weight, side in zip(weights[1:], found.auxiliary, strict=True):
        value = value + weight * loss(side, labels_at(mask, (side.shape[-2], side.shape[-1])))
    return value


def own_losses(network: Segmentor, found: Segmentation, weight: float) -> tuple[Tensor | float, dict[str, Tensor]]:
    """The weighted sum of a network's own losses, and each of them unweighted, detached."""
    parts = network.own_losses(found) if weight else {}
    total = weight * torch.stack(list(parts.values())).sum() if parts else 0.0
    return total, {name: part.detach() for name, part in parts.items()}


class Supervised(nn.Module):
    """Segmentation loss on the privileged view of a batch: how teacher and control learn.

    own_weight: of the network's own losses.
    """

    def __init__(
        self,
        network: Segmentor,
        view: Callable[[Batch], View],
        loss: Loss,
        weights: Sequence[float] = (1.0,),
        own_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.view, self.loss, self.weights = network, view, loss, tuple(weights)
        self.own_weight = own_weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """ "loss", "segmentation", and each loss of the network's own, unweighted, as float32 scalars."""
        assert batch.mask is not None
        found = answer(self.network, self.view, batch)
        value = loss_over_heads(self.loss, self.weights, found, batch.mask)
        own, parts = own_losses(self.network, found, self.own_weight)
        return {"loss": value + own, "segmentation": value.detach(), **parts}


class FrozenTeacher:
    """A teacher that cannot learn: no gradient, eval mode, and a hash of its state that is checked at the end.

    mode "train" reproduces TextFreeKD as released (spec textfreekd.md, section 10): batch norms use the statistics of
    the batch. Their running statistics are kept from changing, so that the hash holds in either mode.
    """

    def __init__(self, network: Segmentor, view: Callable[[Batch], View], mode: str = "eval") -> None:
        self.network, self.view = network.requires_grad_(False), view
        self.network.train(mode == "train")
        if mode == "train":
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.momentum = 0.0
        self.hash = self._state()

    def _state(self) -> str:
        counters = ("num_batches_tracked",)
        state = {name: value for name, value in self.network.state_dict().items() if not name.endswith(counters)}
        return hash_tensors(state)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Segmentation:
        return answer(self.network, self.view, batch)

    def to(self, device: torch.device | str) -> "FrozenTeacher":
        """Move to the student's device."""
        self.network.to(device)
        return self

    def check_unchanged(self) -> None:
        """Raise TrainingError if any parameter or statistic differs from the beginning."""
        if self._state() != self.hash:
            raise TrainingError("the frozen teacher changed while the student was trained", remedy="report this defect")


@dataclass(frozen=True)
class Lesson:
    """One distiller with the name of its teacher's arm and the course of its weight over the training.

    The weight climbs from 0 over the share `warmup` of the training, and falls to `final` over the share `decay` at
    its end. (ReviewKD and DKD warm up over their first 20 epochs; ACF-BCKD lets a weight fall.) prefix: of the names
    of its losses, where several lessons share a distiller.
    """

    distiller: Distiller
    teacher: str = "teacher"
    weight: float = 1.0
    warmup: float = 0.0
    decay: float = 0.0
    final: float = 0.0
    prefix: str = ""

    def weight_at(self, done: float) -> float:
        """The weight when the share `done` (0..1) of the training is over."""
        climb = min(done / self.warmup, 1.0) if self.warmup else 1.0
        left = min((1 - done) / self.decay, 1.0) if self.decay else 1.0
        return climb * (self.final + (self.weight - self.final) * left)


class Distilled(nn.Module):
    """Segmentation loss of the student plus weighted distillation losses against frozen teachers.

    done: the share of the training that is over, set by the trainer before each step; weights follow it. own_weight:
    of the network's own losses.
    """

    def __init__(
        self,
        network: Segmentor,
        teachers: Mapping[str, FrozenTeacher],
        lessons: Sequence[Lesson],
        loss: Loss,
        weights: Sequence[float] = (1.0,),
        own_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.weights = network, loss, tuple(weights)
        self.own_weight = own_weight
        self.distillers = nn.ModuleList(lesson.distiller for lesson in lessons)
        self.done = 0.0
        self.teachers, self.lessons = dict(teachers), tuple(lessons)  # no modules, so outside the module tree

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """ "loss", "segmentation", the network's own and each distiller's losses, unweighted, as float32 scalars."""
        assert batch.mask is not None
        shown = {name: teacher(batch) for name, teacher in self.teachers.items()}
        found = answer(self.network, none, batch)
        value = loss_over_heads(self.loss, self.weights, found, batch.mask)
        own, told = own_losses(self.network, found, self.own_weight)
        parts = {"segmentation": value.detach(), **told}
        value = value + own
        for lesson in self.lessons:
            losses = lesson.distiller(found, shown[lesson.teacher], batch.mask)
            value = value + lesson.weight_at(self.done) * torch.stack(list(losses.values())).sum()
            parts |= {f"{lesson.prefix}{name}": part.detach() for name, part in losses.items()}
        return {"loss": value, **parts}
