"""C2FVL's training step in the library's own loop against the transcription of its specification, both in float32."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.c2fvl_plain import PlainC2FVL, plain_loss
from benchmarks.plain import PlainLoop
from benchmarks.scene import SIDE, Setting, batch, our_steps
from benchmarks.table import Row
from preceptor.data.loading import Batch
from preceptor.learning.losses import segmentation_loss
from preceptor.learning.privilege import View
from preceptor.learning.tasks import Supervised
from preceptor.recipe import TrainingRecipe
from preceptor.segmentors.base import Condition
from preceptor.segmentors.c2fvl import C2FVL

LIMIT = 0.555
"""1.8 times as fast."""
COUNT = 4
"""Images a step, as published."""
FLOAT32 = TrainingRecipe(epochs=1, batch_size=COUNT, precision="float32")


def rows(setting: Setting) -> Iterator[Row]:
    size, count, side, rounds = ("tiny", 1, 64, 3) if setting.quick else ("base", COUNT, SIDE, 4)
    shown = _batch(setting, count, side)
    ours, loop = contenders(setting, size, side)
    check_equal(ours, loop.network, shown)
    task = Supervised(ours, _attributes, segmentation_loss("c2fvl"))
    step = partial(_plain_step, loop, shown)
    times = our_steps(setting, "c2fvl", task, shown, step, rounds, warm=1, settings=FLOAT32)
    yield Row.of_times(
        f"C2FVL {size}, float32 step against its transcription", times, False, at_most=None if setting.quick else LIMIT
    )


def contenders(setting: Setting, size: str, side: int) -> tuple[C2FVL, PlainLoop]:
    """Our network, and the transcription with the same weights in the loop that one writes by hand."""
    torch.manual_seed(setting.seed)
    ours = C2FVL(3, 2, size, condition=Condition("attributes", 1, 8), image_size=side)  # type: ignore[arg-type]
    plain = PlainC2FVL(ours.state_dict())
    return ours, PlainLoop(plain, plain_loss, FLOAT32, setting.device, bf16=False, channels_last=False)


@torch.no_grad()
def check_equal(ours: C2FVL, plain: nn.Module, shown: Batch) -> None:
    """Raise AssertionError unless both give the same maps, without dropout, to the batch's first image."""
    image, attributes = shown.image[:1], shown.shown["attributes"][:1]
    modes = ours.training, plain.training
    found = ours.eval()(image, attributes)
    theirs = plain.eval()(image, attributes)
    torch.testing.assert_close((found.logits.sigmoid(), *found.aligned), theirs, rtol=1e-3, atol=1e-4)
    ours.train(modes[0])
    plain.train(modes[1])


def _batch(setting: Setting, count: int, side: int) -> Batch:
    shown = batch(setting, count, side)
    attributes = torch.randint(2, (count, 8), generator=torch.Generator().manual_seed(setting.seed)).float()
    return Batch(shown.image, shown.mask, shown.cases, {"attributes": attributes})


def _attributes(shown: Batch) -> View:
    return shown.image, shown.shown["attributes"]


def _plain_step(loop: PlainLoop, shown: Batch) -> float:
    assert shown.mask is not None
    image, mask, attributes = (part.to(loop.device) for part in (shown.image, shown.mask, shown.shown["attributes"]))
    return loop.learn(lambda: plain_loss(loop.network(image, attributes), mask))
