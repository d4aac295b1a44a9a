"""Each network's forward pass and training step beside its operations and the machine's matrix-multiply peak."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.measure import by_turns
from benchmarks.plain import PlainLoop
from benchmarks.scene import LOSS, TOKENS, WIDTH, Setting, batch
from benchmarks.table import Line, amount
from preceptor.data.loading import Batch
from preceptor.evaluation.cost import count_flops
from preceptor.recipe import TrainingRecipe
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition, Segmentor, learnable_parameters

NETWORKS = (
    *("guided", "unguided", "fcn_r18", "fcn_r50", "unet_r18", "unet_r50"),
    *("attention_unet", "missformer", "transunet", "mednext", "swin_unetr"),
)
CLASSES = 9
MATRIX = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product sets the peak."""
STEP = 3
"""A training step's operations over those of its forward pass, as usually counted: the backward pass takes two."""


@dataclass(frozen=True)
class Title:
    """What is measured. gflops: of one image's forward pass. matrix: side of those whose product is the peak."""

    name: str
    size: str
    count: int
    side: int
    parameters: int
    gflops: float
    matrix: int


def rows(setting: Setting) -> Iterator[Line]:
    for name in NETWORKS:
        yield from _lines(setting, name)


def _lines(setting: Setting, name: str) -> Iterator[Line]:
    size, count, side = ("tiny", 1, 96) if setting.quick else ("base", 1, 224)
    shown = batch(setting, count, side, CLASSES).to(setting.device)
    precisions = ("float32", "bf16") if setting.bf16 else ("float32",)
    contenders: dict[str, Callable[[], object]] = {}
    for precision in precisions:
        fast = precision == "bf16"
        torch.manual_seed(setting.seed)
        condition = Condition("report", TOKENS, WIDTH)
        network = zoo.build(name, in_channels=3, classes=CLASSES, size=size, condition=condition)
        loop = PlainLoop(network, LOSS, TrainingRecipe(), setting.device, bf16=fast, channels_last=fast)
        contenders[f"peak {precision}"] = _product(setting, torch.bfloat16 if fast else torch.float32)
        contenders[f"forward {precision}"] = partial(_forward, loop, network, shown)
        contenders[f"step {precision}"] = partial(_step, loop, network, shown)
    one = (shown.image[:1], *([shown.shown["report"][:1]] if network.condition else []))
    gflops = count_flops(network.eval(), *one) / 1e9
    title = Title(name, size, count, side, learnable_parameters(network), gflops, _matrix(setting))
    taken = by_turns(contenders, 3, warm=1)
    for precision in precisions:
        yield _line(title, precision, taken)


def _product(setting: Setting, precision: torch.dtype) -> Callable[[], object]:
    side = _matrix(setting)
    one, two = (torch.randn(side, side, device=setting.device, dtype=precision) for _ in range(2))
    return lambda: torch.mm(one, two)


def _matrix(setting: Setting) -> int:
    return 512 if setting.quick else MATRIX.get(setting.device.type, MATRIX["cpu"])


@torch.no_grad()
def _forward(loop: PlainLoop, network: Segmentor, shown: Batch) -> None:
    network.eval()
    with loop.autocast():
        network(shown.image.to(memory_format=loop.format), shown.shown["report"] if network.condition else None)


def _step(loop: PlainLoop, network: Segmentor, shown: Batch) -> None:
    network.train()
    assert shown.mask is not None
    loop.step(shown.image, shown.mask, shown.shown["report"] if network.condition else None)


def _line(title: Title, precision: str, taken: dict[str, list[float]]) -> Line:
    """One network in one precision; shares are of the peak that was measured in the same round."""
    product = 2 * title.matrix**3 / 1e9
    cells = {
        "network": title.name,
        "parameters": f"{title.parameters / 1e6:.2f} M",
        "GFLOP an image": f"{title.gflops:.1f}",
        "precision": precision,
        "peak": f"{product / statistics.median(taken[f'peak {precision}']):.0f} GFLOP/s",
    }
    values: dict[str, Any] = {**asdict(title), "precision": precision}
    for work, images in (("forward", 1), ("step", STEP)):
        done = images * title.count * title.gflops
        spent = taken[f"{work} {precision}"]
        speed = done / statistics.median(spent)
        share = statistics.median(
            (done / own) / (product / most) for own, most in zip(spent, taken[f"peak {precision}"], strict=True)
        )
        milliseconds = 1e3 * statistics.median(spent)
        cells |= {
            work: amount(milliseconds, "ms"),
            f"{work}, GFLOP/s": f"{speed:.0f}",
            f"{work}, share of the peak": f"{share:.0%}",
        }
        values |= {f"{work}_milliseconds": milliseconds, f"{work}_gflops_per_second": speed, f"{work}_share": share}
    return Line(f"Segmentors ({title.size}, {title.count} x 3 x {title.side} x {title.side})", cells, values)
