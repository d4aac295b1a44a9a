"""Tasks: what a step computes, and what it must never touch."""

import pytest
import torch
from torch import nn

from preceptor.data.loading import Batch
from preceptor.distillers.base import Distiller
from preceptor.errors import DataError, TrainingError
from preceptor.learning import privilege
from preceptor.learning.losses import segmentation_loss
from preceptor.learning.tasks import Distilled, FrozenTeacher, Supervised
from preceptor.segmentors.base import Segmentation, Segmentor


class Tiny(Segmentor):
    """One convolution and a batch norm; shown reports it adds their mean."""

    in_channels, classes, divisor, taps = 1, 2, 1, ()

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: torch.Tensor, condition: torch.Tensor | None = None) -> Segmentation:
        feature = self.body(image)
        if condition is not None:
            feature = feature + condition.mean((1, 2))[:, None, None, None]
        return Segmentation(self.head(feature), {"body": feature})


class Gap(Distiller):
    """Mean squared difference of the one feature."""

    def forward(self, student: Segmentation, teacher: Segmentation, target: torch.Tensor | None = None) -> dict:
        return {"gap": (student.features["body"] - teacher.features["body"]).square().mean()}


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    return Batch(torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 8, 8)), ["a", "b"], torch.randn(2, 3, 4))


def distilled(mode: str = "eval", weight: float = 0.5) -> Distilled:
    torch.manual_seed(1)
    teacher = FrozenTeacher(Tiny(), privilege.report, mode)
    return Distilled(Tiny(), teacher, [(weight, Gap())], segmentation_loss("dice_ce"))


def test_loss_is_segmentation_plus_weighted_distillation(batch: Batch) -> None:
    values = distilled(weight=0.5)(batch)
    expected = values["segmentation"] + 0.5 * values["gap"]
    torch.testing.assert_close(values["loss"].detach(), expected)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_teacher_does_not_change_in_either_mode(batch: Batch, mode: str) -> None:
    task = distilled(mode)
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.1)
    task.train()
    for _ in range(3):
        task(batch)["loss"].backward()
        optimizer.step()
    task.teacher.check_unchanged()
    assert all(p.grad is None for p in task.teacher.network.parameters())


def test_teacher_mode_train_uses_batch_statistics(batch: Batch) -> None:
    frozen, original = distilled("eval").teacher, distilled("train").teacher
    assert not torch.allclose(frozen(batch).logits, original(batch).logits)


def test_a_changed_teacher_is_called_out(batch: Batch) -> None:
    task = distilled()
    with torch.no_grad():
        next(iter(task.teacher.network.parameters())).add_(1e-3)
    with pytest.raises(TrainingError, match="frozen teacher changed"):
        task.teacher.check_unchanged()


def test_the_teacher_is_in_no_state_dict_and_stays_in_eval_mode(batch: Batch) -> None:
    task = distilled().train()
    assert set(task.state_dict()) == {f"network.{name}" for name in Tiny().state_dict()}
    assert not task.teacher.network.training


def test_the_student_sees_no_report(batch: Batch) -> None:
    task = distilled(weight=0.0).eval()
    with_report = task(batch)["segmentation"]
    without = Batch(batch.image, batch.mask, batch.cases, torch.zeros_like(batch.report))  # type: ignore[arg-type]
    torch.testing.assert_close(task(without)["segmentation"], with_report)


def test_a_report_guided_network_never_gets_silent_zeros(batch: Batch) -> None:
    task = Supervised(Tiny(), privilege.report, segmentation_loss("dice_ce"))
    with pytest.raises(DataError, match="images without report features"):
        task(Batch(batch.image, batch.mask, batch.cases))
