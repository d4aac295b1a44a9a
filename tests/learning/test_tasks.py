"""Tasks: what a step computes, and what it must never touch."""

import pytest
import torch
from torch import nn

from preceptor.data.loading import Batch
from preceptor.distillers.base import Distiller
from preceptor.errors import DataError, TrainingError
from preceptor.learning import privilege
from preceptor.learning.losses import segmentation_loss
from preceptor.learning.tasks import Distilled, FrozenTeacher, Lesson, Supervised, loss_over_heads
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
    return Batch(torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 8, 8)), ["a", "b"], {"report": torch.randn(2, 3, 4)})


def distilled(mode: str = "eval", weight: float = 0.5) -> Distilled:
    torch.manual_seed(1)
    teacher = FrozenTeacher(Tiny(), privilege.report, mode)
    return Distilled(Tiny(), {"teacher": teacher}, [Lesson(Gap(), weight=weight)], segmentation_loss("dice_ce"))


def test_loss_is_segmentation_plus_weighted_distillation(batch: Batch) -> None:
    values = distilled(weight=0.5)(batch)
    expected = values["segmentation"] + 0.5 * values["gap"]
    torch.testing.assert_close(values["loss"].detach(), expected)


class Strict(Tiny):
    """A network that asks its logits to be small."""

    def own_losses(self, found: Segmentation) -> dict[str, torch.Tensor]:
        return {"size": found.logits.square().mean()}


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_a_network_s_own_losses_are_weighed_and_told(batch: Batch, weight: float) -> None:
    torch.manual_seed(1)
    loss = segmentation_loss("dice_ce")
    teacher = FrozenTeacher(Tiny(), privilege.report)
    for task in (
        Supervised(Strict(), privilege.none, loss, own_weight=weight),
        Distilled(Strict(), {"teacher": teacher}, [Lesson(Gap(), weight=0.0)], loss, own_weight=weight),
    ):
        values = task(batch)
        assert ("size" in values) == (weight > 0)
        expected = values["segmentation"] + weight * values.get("size", torch.zeros(()))
        torch.testing.assert_close(values["loss"].detach(), expected)
        assert values["loss"].requires_grad


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_teacher_does_not_change_in_either_mode(batch: Batch, mode: str) -> None:
    task = distilled(mode)
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.1)
    task.train()
    for _ in range(3):
        task(batch)["loss"].backward()
        optimizer.step()
    task.teachers["teacher"].check_unchanged()
    assert all(p.grad is None for p in task.teachers["teacher"].network.parameters())


def test_teacher_mode_train_uses_batch_statistics(batch: Batch) -> None:
    frozen, original = (distilled(mode).teachers["teacher"] for mode in ("eval", "train"))
    assert not torch.allclose(frozen(batch).logits, original(batch).logits)


def test_a_changed_teacher_is_called_out(batch: Batch) -> None:
    task = distilled()
    with torch.no_grad():
        next(iter(task.teachers["teacher"].network.parameters())).add_(1e-3)
    with pytest.raises(TrainingError, match="frozen teacher changed"):
        task.teachers["teacher"].check_unchanged()


def test_the_teacher_is_in_no_state_dict_and_stays_in_eval_mode(batch: Batch) -> None:
    task = distilled().train()
    assert set(task.state_dict()) == {f"network.{name}" for name in Tiny().state_dict()}
    assert not task.teachers["teacher"].network.training


def test_the_student_sees_no_report(batch: Batch) -> None:
    task = distilled(weight=0.0).eval()
    with_report = task(batch)["segmentation"]
    without = Batch(batch.image, batch.mask, batch.cases, {"report": torch.zeros_like(batch.shown["report"])})
    torch.testing.assert_close(task(without)["segmentation"], with_report)


def test_a_report_guided_network_never_gets_silent_zeros(batch: Batch) -> None:
    task = Supervised(Tiny(), privilege.report, segmentation_loss("dice_ce"))
    with pytest.raises(DataError, match="images without report features"):
        task(Batch(batch.image, batch.mask, batch.cases))


def test_a_weight_climbs_at_the_beginning_and_falls_at_the_end() -> None:
    lesson = Lesson(Gap(), weight=2.0, warmup=0.1, decay=0.5, final=1.0)
    found = [lesson.weight_at(done) for done in (0.0, 0.05, 0.1, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([0.0, 1.0, 2.0, 2.0, 1.5, 1.0])
    assert Lesson(Gap(), weight=0.5).weight_at(0.0) == Lesson(Gap(), weight=0.5).weight_at(1.0) == 0.5


def test_the_task_weighs_by_how_much_of_the_training_is_done(batch: Batch) -> None:
    task = distilled()
    task.lessons = (Lesson(task.lessons[0].distiller, weight=1.0, warmup=1.0, prefix="0/"),)
    task.done = 0.25
    values = task(batch)
    torch.testing.assert_close(values["loss"].detach(), values["segmentation"] + 0.25 * values["0/gap"])


def test_several_teachers_are_each_compared_with_the_student(batch: Batch) -> None:
    torch.manual_seed(1)
    teachers = {name: FrozenTeacher(Tiny(), privilege.report) for name in ("one", "two")}
    lessons = [Lesson(Gap(), name, weight, prefix=f"{name}/") for name, weight in (("one", 1.0), ("two", 3.0))]
    values = Distilled(Tiny(), teachers, lessons, segmentation_loss("dice_ce"))(batch)
    expected = values["segmentation"] + values["one/gap"] + 3 * values["two/gap"]
    torch.testing.assert_close(values["loss"].detach(), expected)
    assert values["one/gap"] != values["two/gap"]


def test_side_heads_learn_with_their_weights_from_labels_that_exist() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.int64)
    mask[:, ::2, ::2] = 3
    seen: list[torch.Tensor] = []

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(target)
        return logits.mean()

    found = Segmentation(torch.ones(1, 4, 8, 8), {}, (torch.full((1, 4, 4, 4), 2.0), torch.full((1, 4, 2, 2), 3.0)))
    assert loss_over_heads(loss, [1.0, 0.5, 0.25], found, mask) == 1 + 0.5 * 2 + 0.25 * 3
    assert [tuple(target.shape) for target in seen] == [(1, 8, 8), (1, 4, 4), (1, 2, 2)]
    assert set(torch.cat([target.flatten() for target in seen]).tolist()) == {0, 3}
