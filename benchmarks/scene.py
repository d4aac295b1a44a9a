"""What the benchmarks share: the networks, one batch, and our training loop run against a baseline."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measure import WARM, PacedLoader, Times
from benchmarks.plain import PlainLoop
from preceptor.data.loading import Batch
from preceptor.learning.losses import segmentation_loss
from preceptor.learning.tasks import Distilled, Supervised
from preceptor.learning.training import Training, has_fast_bf16, make_fabric
from preceptor.progress import Progress
from preceptor.recipe import TrainingRecipe
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition, Segmentor

SIDE, BATCH = 224, 8
"""Height and width in pixels, and cases a step."""
TOKENS, WIDTH = 24, 768
"""Report features: TextFreeKD's length, and the width of a BERT-base."""
LOSS = segmentation_loss("dice_ce")


@dataclass(frozen=True)
class Setting:
    """quick: few rounds of small networks, to see that all works. folder: for what is written, removed afterwards.

    full: with what takes minutes a round, too.
    """

    quick: bool
    seed: int
    folder: Path
    full: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """The networks' sizes with the counted rounds of each."""
        return {"tiny": 4} if self.quick else {"tiny": 30, "small": 12, "base": 6}

    @property
    def weighed(self) -> str:
        """The size whose memory is measured, in processes of their own."""
        return "tiny" if self.quick else "small"

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def bf16(self) -> bool:
        """Whether the default precision is bf16 here."""
        return has_fast_bf16(self.device)


def student(setting: Setting, size: str) -> Segmentor:
    """The report-free student; equal weights for equal seeds."""
    torch.manual_seed(setting.seed)
    return zoo.build("unguided", in_channels=3, classes=2, size=size)


def teacher(setting: Setting, size: str) -> Segmentor:
    """The report-guided teacher on features of a BERT-base."""
    torch.manual_seed(setting.seed)
    condition = Condition("report", TOKENS, WIDTH)
    return zoo.build("guided", in_channels=3, classes=2, size=size, condition=condition)


def batch(setting: Setting, count: int = BATCH, side: int = SIDE, classes: int = 2) -> Batch:
    """A batch as a loader makes it: NCHW images, class indices (squares, all classes alike), report features."""
    numbers = torch.Generator().manual_seed(setting.seed)
    image = torch.randn(count, 3, side, side, generator=numbers)
    shades = torch.nn.functional.interpolate(image[:, :1, ::16, ::16], (side, side))[:, 0]
    mask = (torch.special.ndtr(shades) * classes).long().clamp(max=classes - 1)
    names = [f"case-{index}" for index in range(count)]
    return Batch(image, mask, names, {"report": torch.randn(count, TOKENS, WIDTH, generator=numbers)})


def plain_loop(setting: Setting, network: Segmentor) -> PlainLoop:
    """The hand-written loop with the default precision and memory format."""
    return PlainLoop(network, LOSS, TrainingRecipe(), setting.device, bf16=setting.bf16, channels_last=True)


def our_steps(
    setting: Setting,
    name: str,
    task: Supervised | Distilled,
    shown: Batch,
    baseline: Callable[[], object] | None,
    rounds: int,
    warm: int = WARM,
    settings: TrainingRecipe | None = None,
) -> Times:
    """Steps of `task` in the library's own training loop, each beside one of the baseline; settings: its defaults."""
    settings = settings or TrainingRecipe(epochs=1, batch_size=BATCH)
    loader = PacedLoader(shown, baseline, rounds, warm)
    folder = setting.folder / name
    training = Training(
        make_fabric(settings),
        task,
        loader,
        [],
        settings,
        folder,
        setting.seed,
        Progress(),
        name,
    )
    training.run()
    return loader.times
