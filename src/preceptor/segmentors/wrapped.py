"""Bring your own network: any module that answers an image with logits becomes a segmentor."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from preceptor.errors import RecipeError
from preceptor.segmentors.base import Segmentation, Segmentor, check_classes, require_divisible
from preceptor.segmentors.convolution import enlarge
from preceptor.segmentors.dry_run import dry_run, find_divisor, split_output, tap_places, tokens_to_map
from preceptor.segmentors.watched import run_watched


class Wrapped(Segmentor):
    """A segmentor around `module`, which stays as it is; its parameters stand under `network.`.

    module: takes [B, in_channels, H, W] and returns logits [B, classes, h, w] ([B, 1, h, w] will do for two classes),
    h = H / stride rounded up; or a tuple or list of such, logits first and side heads after; or a mapping that has
    logits under "logits" or "out", and those of a side head, if any, under "aux".
    taps: name to the path of a submodule (one of `module.named_modules()`) or to (path, group), with a group of
    `base.Tap` that is "decoder" where left out. What the submodule answers last in a forward pass is the feature:
    [B, C, h, w], or tokens [B, N, C], row by row, where N is the number of pixels at some stride.
    divisor: what height and width must be multiples of; None: found by trying 1, 2, 4 and so on up to 32.
    example: (height, width) of the images it is tried on, for networks that cannot take 64 x 128.

    Once, here, the module is run on zeros in training and in evaluation mode, so that `taps` and `side_heads` are true
    before any forward pass; its buffers and modes, and the random numbers, are afterwards as before. Logits of a
    coarser stride are the tap "logits", and are enlarged bilinearly.
    Raises RecipeError for a path that leads nowhere, with the nearest, and for answers other than these.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        in_channels: int,
        classes: int,
        taps: Mapping[str, str | Sequence[str]] | None = None,
        divisor: int | None = None,
        example: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_classes(in_channels, classes)
        if divisor is not None and divisor < 1:
            raise RecipeError("a positive whole number is needed", where="divisor", found=divisor)
        places = tap_places(module, taps or {})
        height, width = example or (-(-side // (divisor or 1)) * (divisor or 1) for side in (64, 128))
        seen = dry_run(module, in_channels, classes, (height, width), places)
        self.network = module
        self.in_channels, self.classes = in_channels, classes
        self.divisor = divisor or find_divisor(module, in_channels, (height, width))
        self.taps, self.side_heads = seen.taps, seen.side_heads
        self._paths = {name: path for name, (path, _) in places.items()}
        self._tokens, self._overwritten = seen.tokens, seen.overwritten

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Segmentation:
        """As the base says; `condition` changes nothing."""
        require_divisible(image, self.divisor, type(self.network).__name__)
        answer, found = run_watched(self.network, image, self._paths, self._keep)
        native, sides = split_output(answer)
        features = {}
        for tap in self.taps:
            feature = native if tap.group == "logits" else found[tap.name]
            tokens = tap.name in self._tokens
            features[tap.name] = tokens_to_map(feature, image.shape[-2:], tap.stride) if tokens else feature
        logits = native
        if "logits" in features:
            logits = enlarge(native, image)
        return Segmentation(logits, features, sides)

    def _keep(self, name: str, answer: Tensor) -> Tensor:
        return answer.clone() if name in self._overwritten else answer
