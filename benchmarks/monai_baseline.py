"""Our MedNeXt and Swin UNETR against MONAI's own, with the same weights and input: forward pass and training step.

MONAI's MedNeXt differs from the published one where expansion ratios differ between levels, so the variant with one
ratio is compared, in which both are the same network. Its other networks have other topologies than any of ours.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import in_turn
from benchmarks.plain import PlainLoop
from benchmarks.scene import LOSS, Setting, batch
from benchmarks.table import Row
from preceptor.data.loading import Batch
from preceptor.recipe import TrainingRecipe
from preceptor.segmentors.base import Segmentation, Segmentor, Size
from preceptor.segmentors.mednext import WIDTHS, MedNeXt
from preceptor.segmentors.swin_unetr import FEATURES, SwinUNETR

LIMIT = 1.05
CLASSES = 9


class Theirs(nn.Module):
    """A network of MONAI, its logits handed on as ours are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, _: Tensor | None = None) -> Segmentation:
        return Segmentation(self.network(image), {})


def mednext(size: Size) -> tuple[Segmentor, nn.Module]:
    """Ours and MONAI's, variant S."""
    from monai.networks.nets import MedNeXt as Library

    ours = MedNeXt(3, CLASSES, size, variant="S")
    theirs = Library(
        spatial_dims=2,
        init_filters=WIDTHS[size],
        in_channels=3,
        out_channels=CLASSES,
        kernel_size=3,
        use_residual_connection=True,
    )
    return ours, theirs


def swin_unetr(size: Size) -> tuple[Segmentor, nn.Module]:
    """Ours and MONAI's."""
    from monai.networks.nets import swin_unetr as library

    library.rearrange = _turned
    ours = SwinUNETR(3, CLASSES, size)
    return ours, library.SwinUNETR(3, CLASSES, feature_size=FEATURES[size], spatial_dims=2)


def _turned(maps: Tensor, pattern: str) -> Tensor:
    """What `einops.rearrange` does for the patterns that MONAI's Swin UNETR needs, in its least time."""
    before, after = (side.split() for side in pattern.split("->"))
    return maps.permute([before.index(axis) for axis in after])


NETWORKS: dict[str, Callable[[Size], tuple[Segmentor, nn.Module]]] = {"mednext": mednext, "swin_unetr": swin_unetr}


def rows(setting: Setting) -> Iterator[Row]:
    size: Size
    size, count, side = ("tiny", 1, 96) if setting.quick else ("base", 2, 224)
    shown = batch(setting, count, side, CLASSES).to(setting.device)
    for name, build in NETWORKS.items():
        for fast in {False, setting.bf16}:
            ours, theirs = _loops(setting, build, size, fast)
            for work in (_forward, _step):
                times = in_turn(partial(work, ours, shown), partial(work, theirs, shown), 5, warm=1)
                what = f"{name} {size}, {work.__name__.strip('_')}, {'bf16' if fast else 'float32'}, against MONAI's"
                yield Row.of_times(what, times, False, at_most=LIMIT)


def _loops(
    setting: Setting, build: Callable[[Size], tuple[Segmentor, nn.Module]], size: Size, fast: bool
) -> tuple[PlainLoop, PlainLoop]:
    """A loop for ours and one for MONAI's with our weights, in bf16 and channels_last or in float32 and NCHW."""
    torch.manual_seed(setting.seed)
    ours, theirs = build(size)
    theirs.load_state_dict(theirs.state_dict() | ours.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image).logits, theirs.eval()(image), rtol=1e-4, atol=1e-4)
    settings = {"bf16": fast, "channels_last": fast}
    mine, other = (
        PlainLoop(network, LOSS, TrainingRecipe(), setting.device, **settings) for network in (ours, Theirs(theirs))
    )
    return mine, other


@torch.no_grad()
def _forward(loop: PlainLoop, shown: Batch) -> None:
    loop.network.eval()
    with loop.autocast():
        loop.network(shown.image.to(memory_format=loop.format))


def _step(loop: PlainLoop, shown: Batch) -> float:
    loop.network.train()
    assert shown.mask is not None
    return loop.step(shown.image, shown.mask)
