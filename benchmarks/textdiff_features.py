"""TextDiff with its frozen U-Net (random weights): features in one batch, training from kept ones, a student's latency.

In any run with an own small U-Net, in one with --full also with the published one of 552.8 million parameters.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Times, by_turns, in_turn
from benchmarks.scene import Setting, our_steps
from benchmarks.table import Row
from benchmarks.textdiff import FLOAT32, LOSS, REPORT, Classifier, Shapes, kept_batch
from preceptor.learning.privilege import report
from preceptor.learning.tasks import Supervised
from preceptor.segmentors import zoo
from preceptor.segmentors.diffusion import SHAPES, DiffusionFeatures, DiffusionShape, diffusion_unet
from preceptor.segmentors.textdiff import DIAL, STEPS, TextDiff

STUDENTS = {"tiny": ("plain_unet", "tiny"), "small": ("plain_unet", "tiny"), "base": ("unet_r18", "base")}
"""Size of the teacher to its student: those of the shipped recipes."""
FASTER = 0.02
"""A student is at least 50 times as fast as the published teacher."""


def rows(setting: Setting) -> Iterator[Row]:
    sizes = ("tiny",) if setting.quick else ("small", "base") if setting.full else ("small",)
    for size in sizes:
        yield from _of_size(setting, size, 1 if size == "base" else 4)


def _of_size(setting: Setting, size: str, rounds: int) -> Iterator[Row]:
    side = SHAPES[DIAL[size][0]].image_size
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(setting.seed)) * 2 - 1
    made, frozen, maps = _features(setting, size, image, rounds)
    yield Row.of_times(f"TextDiff's features {size}, one batch that ends early against three forwards", made, False)

    network = Classifier(_shapes(frozen, side), DIAL[size][1:])
    shown = kept_batch(setting, network, maps, image)
    task = Supervised(network, report, LOSS)
    kept = our_steps(setting, f"kept-{size}", task, shown, None, max(2, rounds), warm=1, settings=FLOAT32).ours
    features = made.medians()[0]
    inside = Times(kept, [step + features for step in kept])
    yield Row.of_times(f"TextDiff {size}, step from kept features against computing them", inside, False)

    times = _latencies(setting, size, network, maps, image)
    teacher = Times(times["student"], [classified + features for classified in times["classifier"]])
    limit = FASTER if size == "base" else None
    yield Row.of_times(f"latency of {' '.join(STUDENTS[size])} against TextDiff {size}", teacher, False, limit)


def _features(
    setting: Setting, size: str, image: Tensor, rounds: int
) -> tuple[Times, DiffusionFeatures, Sequence[Tensor]]:
    """Times of the library's extractor and of three forward passes, the extractor, and its maps [C, h, w]."""
    with torch.device("meta"):
        blocks = TextDiff(3, 2, size, condition=REPORT).frozen.blocks  # type: ignore[arg-type]
    torch.manual_seed(setting.seed)
    whole, frozen = unets(SHAPES[DIAL[size][0]], blocks)
    corner = image[..., : image.shape[2] // 4, : image.shape[3] // 4]  # chooses kernels at a sixteenth of the cost
    frozen(corner)
    three_forwards(whole, frozen, corner)
    answers: dict[str, Sequence[Tensor]] = {}
    made = in_turn(
        lambda: answers.update(ours=frozen(image)),
        lambda: answers.update(theirs=three_forwards(whole, frozen, image)),
        rounds,
        warm=0 if size == "base" else 1,
    )
    torch.testing.assert_close(answers["ours"], answers["theirs"], rtol=1e-3, atol=1e-3)
    return made, frozen, [part[0] for part in answers["ours"]]


def _shapes(frozen: DiffusionFeatures, side: int) -> Shapes:
    known = zip(frozen.widths, frozen.strides, strict=True)
    return tuple((width, side // stride, side // stride) for width, stride in known)


def unets(shape: DiffusionShape, blocks: Sequence[int]) -> tuple[Any, DiffusionFeatures]:
    """A whole U-Net and the library's extractor, which ends at the last of `blocks`, on the same weights in memory."""
    whole = diffusion_unet(shape).requires_grad_(False).eval()
    with torch.device("meta"):
        twin = diffusion_unet(shape)
    twin.load_state_dict(whole.state_dict(), assign=True)
    return whole, DiffusionFeatures(twin, shape, blocks, STEPS, seed=40)


@torch.no_grad()
def three_forwards(whole: Any, frozen: DiffusionFeatures, image: Tensor) -> tuple[Tensor, ...]:
    """The maps as the original takes them: a forward pass to the end for each timestep, blocks listened to by hooks."""
    heard: list[Tensor] = []
    hooks = [
        _tapped(whole, frozen.shape, block).register_forward_hook(lambda _, __, found: heard.append(found))
        for block in frozen.blocks
    ]
    for noisy, step in zip(frozen.noised(image).unbind(1), frozen.steps, strict=True):
        whole(noisy, step)
    for hook in hooks:
        hook.remove()
    count = len(frozen.blocks)
    return tuple(torch.cat(heard[place::count], dim=1) for place in range(count))


def _tapped(whole: Any, shape: DiffusionShape, block: int) -> Any:
    """The module of diffusers' U-Net whose answer a decoder block's is."""
    up, layer = shape.place(block)
    level = shape.levels - 1 - up
    if layer == shape.layers and level:
        return whole.up_blocks[up]
    return (whole.up_blocks[up].attentions if level in shape.attention else whole.up_blocks[up].resnets)[layer]


def _latencies(
    setting: Setting, size: str, network: Classifier, maps: Sequence[Tensor], image: Tensor
) -> dict[str, list[float]]:
    """Seconds of the classifier on given maps and of the student, in the same rounds."""
    name, dial = STUDENTS[size]
    student = zoo.build(name, in_channels=3, classes=2, size=dial).eval().to(setting.device)
    text = torch.randn(1, REPORT.length, REPORT.width)
    classify = partial(network.eval().classify, [part[None] for part in maps], text, (image.shape[2], image.shape[3]))
    with torch.no_grad():
        return by_turns({"classifier": classify, "student": lambda: student(image)}, 3, warm=1)
