"""What one training step computes: the supervised task of teacher and control, and the distilled task of the student.

A task is a module whose forward takes a batch and returns a dictionary of scalars, "loss" among them. The frozen
teacher is held outside the module tree: it is in no state dict, no optimiser, and no gradient reaches it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from preceptor.data.loading import Batch
from preceptor.distillers.base import Distiller
from preceptor.errors import TrainingError
from preceptor.learning.privilege import View, none
from preceptor.segmentors.base import Segmentation, Segmentor
from preceptor.storage import hash_tensors

Loss = Callable[[Tensor, Tensor], Tensor]


class Supervised(nn.Module):
    """Segmentation loss on the privileged view of a batch: how teacher and control learn."""

    def __init__(self, network: Segmentor, view: Callable[[Batch], View], loss: Loss) -> None:
        super().__init__()
        self.network, self.view, self.loss = network, view, loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """ "loss" and "segmentation", float32 scalars."""
        assert batch.mask is not None
        value = self.loss(self.network(*self.view(batch)).logits, batch.mask)
        return {"loss": value, "segmentation": value.detach()}


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
        return self.network(*self.view(batch))

    def to(self, device: torch.device | str) -> "FrozenTeacher":
        """Move to the student's device."""
        self.network.to(device)
        return self

    def check_unchanged(self) -> None:
        """Raise TrainingError if any parameter or statistic differs from the beginning."""
        if self._state() != self.hash:
            raise TrainingError("the frozen teacher changed while the student was trained", remedy="report this defect")


class Distilled(nn.Module):
    """Segmentation loss of the student plus weighted distillation losses against a frozen teacher."""

    def __init__(
        self,
        network: Segmentor,
        teacher: FrozenTeacher,
        distillers: Sequence[tuple[float, Distiller]],
        loss: Loss,
    ) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.distillers = nn.ModuleList(distiller for _, distiller in distillers)
        self.weights = [weight for weight, _ in distillers]
        self._teacher = (teacher,)  # a tuple hides the teacher from the module tree

    @property
    def teacher(self) -> FrozenTeacher:
        """The teacher; not a submodule."""
        return self._teacher[0]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """ "loss", "segmentation", and each distiller's losses, unweighted, as float32 scalars."""
        assert batch.mask is not None
        shown = self.teacher(batch)
        answer = self.network(*none(batch))
        value = self.loss(answer.logits, batch.mask)
        parts = {"segmentation": value.detach()}
        for weight, distiller in zip(self.weights, self.distillers, strict=True):
            losses = distiller(answer, shown, batch.mask)
            value = value + weight * torch.stack(list(losses.values())).sum()
            parts |= {name: part.detach() for name, part in losses.items()}
        return {"loss": value, **parts}
