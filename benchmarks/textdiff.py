"""TextDiff's classifier trained from kept features against its specification's transcription; size of the features.

The maps are random, in float16 and mapped from a file, as the library keeps them; no U-Net is there to make others.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.plain import PlainLoop
from benchmarks.scene import Setting, our_steps
from benchmarks.table import Line, Row
from benchmarks.textdiff_plain import PlainClassifier, plain_name
from preceptor.data.loading import Batch
from preceptor.learning.cache import CachedMaps, FeatureStore
from preceptor.learning.losses import segmentation_loss
from preceptor.learning.privilege import report
from preceptor.learning.tasks import Supervised
from preceptor.recipe import TrainingRecipe
from preceptor.segmentors.base import Condition, Segmentation, Segmentor
from preceptor.segmentors.pixel_classifier import PixelClassifier
from preceptor.segmentors.textdiff import BLOCKS, DIAL, TextDiff

LIMIT = 0.555
"""1.8 times as fast."""
REPORT = Condition("report", 10, 768)
LOSS = segmentation_loss("textdiff")
FLOAT32 = TrainingRecipe(epochs=1, batch_size=1, precision="float32")
SIDE = 256
Shapes = tuple[tuple[int, int, int], ...]
QUICK: Shapes = ((96, 8, 8), (96, 16, 16), (64, 32, 32), (64, 64, 64))


class Classifier(Segmentor):
    """TextDiff without its U-Net, of which it knows the shapes of the maps; `classify` is all that it can do."""

    def __init__(self, shapes: Shapes, dial: tuple[int, int, int, tuple[int, int]]) -> None:
        super().__init__()
        self.shapes, self.condition, self.classes = shapes, REPORT, 2
        width, heads, head_width, decoder = dial
        self.dial = {"width": width, "heads": heads, "head_width": head_width, "decoder_widths": decoder}
        widths = [shape[0] for shape in shapes]
        self.classifier = PixelClassifier(widths, 2, text_width=REPORT.width, **self.dial)  # type: ignore[arg-type]

    def frozen_shapes(self, size: tuple[int, int]) -> Shapes:
        """As the base says."""
        return self.shapes

    def frozen_identity(self) -> str:
        """As the base says."""
        return "maps"

    def classify(self, maps: Sequence[Tensor], condition: Tensor | None, size: tuple[int, int]) -> Segmentation:
        """As TextDiff does."""
        return Segmentation(self.classifier([part.float() for part in maps], condition, size).logits, {})


def rows(setting: Setting) -> Iterator[Row | Line]:
    size, shapes = ("tiny", QUICK) if setting.quick else ("base", published_shapes("monuseg"))
    torch.manual_seed(setting.seed)
    network = Classifier(shapes, DIAL[size][1:])
    shown = kept_batch(setting, network, [torch.randn(shape) for shape in shapes])
    loop = transcription(setting, network)
    check_equal(network, loop, shown)
    baseline = partial(_plain_step, loop, shown)
    task = Supervised(network, report, LOSS)
    times = our_steps(setting, "textdiff", task, shown, baseline, 2, warm=1, settings=FLOAT32)
    limit = None if setting.quick else LIMIT
    yield Row.of_times(f"TextDiff's classifier {size}, float32 step against its transcription", times, False, limit)
    yield from (_kept(name) for name in BLOCKS)


def published_shapes(blocks: str) -> Shapes:
    """The frozen maps of an image of 256 x 256."""
    with torch.device("meta"):
        network = TextDiff(3, 2, "base", condition=REPORT, blocks=blocks)  # type: ignore[arg-type]
    return network.frozen_shapes((SIDE, SIDE))


def kept_batch(setting: Setting, network: Segmentor, maps: Sequence[Tensor], image: Tensor | None = None) -> Batch:
    """A batch of one case with its maps [C, h, w] in a file of the library's cache, mapped and not read.

    image: [1, 3, H, W]; left out, a random one at the size of the last of the maps.
    """
    numbers = torch.Generator().manual_seed(setting.seed)
    image = torch.rand(1, 3, *maps[-1].shape[1:], generator=numbers) * 2 - 1 if image is None else image
    store = FeatureStore(setting.folder, network.frozen_shapes((image.shape[2], image.shape[3])))
    store.write("one", maps, "case-0")
    mask = (torch.rand(1, *image.shape[2:], generator=numbers) > 0.7).long()
    shown = {"report": torch.randn(1, REPORT.length, REPORT.width, generator=numbers)}
    kept = CachedMaps(store, (("one",),)).batch([0], [0])
    return Batch(image, mask, ["case-0"], shown, {network.frozen_identity(): kept})


def transcription(setting: Setting, network: Classifier) -> PlainLoop:
    """The transcription with the weights of `network` in the loop that one writes by hand."""
    plain = PlainClassifier([shape[0] for shape in network.shapes], 2, REPORT.width, **network.dial)  # type: ignore[arg-type]
    plain.load_state_dict({plain_name(key): value for key, value in network.classifier.state_dict().items()})
    return PlainLoop(plain, LOSS, FLOAT32, setting.device, bf16=False, channels_last=False)


@torch.no_grad()
def check_equal(network: Classifier, loop: PlainLoop, shown: Batch) -> None:
    """Raise AssertionError unless both give the same logits to a corner of the batch's maps."""
    maps = [part[:, :, : part.shape[2] // 8, : part.shape[3] // 8].float() for part in shown.frozen["maps"]]
    size, text = (maps[-1].shape[2], maps[-1].shape[3]), shown.shown["report"]
    found = network.eval().classify(maps, text, size).logits
    torch.testing.assert_close(found, loop.network.eval()(maps, text, size), rtol=1e-3, atol=1e-4)
    network.train()
    loop.network.train()


def _plain_step(loop: PlainLoop, shown: Batch) -> float:
    assert shown.mask is not None
    maps = [part.to(loop.device).float() for part in shown.frozen["maps"]]
    text, mask = shown.shown["report"].to(loop.device), shown.mask.to(loop.device)
    return loop.learn(lambda: LOSS(loop.network(maps, text, (mask.shape[1], mask.shape[2])), mask))


def _kept(blocks: str) -> Line:
    """What the library keeps of one variant of one case."""
    shapes = published_shapes(blocks)
    halves = FeatureStore(Path(), shapes).bytes_each
    cells = {
        "blocks": f"{blocks} ({', '.join(map(str, BLOCKS[blocks]))})",
        "maps": ", ".join(f"{width} x {rows} x {columns}" for width, rows, columns in shapes),
        "values": f"{halves / 2e6:.1f} M",
        "kept, float16": f"{halves / 1e6:.1f} MB",
        "float32": f"{2 * halves / 1e6:.1f} MB",
    }
    return Line(f"TextDiff's frozen features of an image of {SIDE} x {SIDE}", cells, {"name": blocks, "bytes": halves})
