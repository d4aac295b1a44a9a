"""C2FVL's gate: every pixel of a map is multiplied by one number that is computed from all its channels.

Training goes over the pixels a few thousand at a time, forwards and backwards, so that nothing but the map and its
gradient is ever as large as the map: what is in between stays in the processor's caches. The numbers are those of the
plain path but for rounding. Source: specification of C2FVL, section 2 (VLAB).
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

CHUNK = 2**17
"""Values of a map that are worked on at a time: 0.5 MB, so that all that comes of them fits the cache of a core."""


class PixelGate(nn.Module):
    """VLAB, and a 1x1 convolution of what it lets through.

    Two branches, each a 1x1 convolution and a linear layer over channels with nothing in between, hence one matrix;
    after a ReLU the mean over channels of one branch and the largest of the other are added, and a perceptron
    1 - 4 - 1 makes the number of the sum. Its hidden biases start positive: with the published start, of either sign,
    one gate in sixteen is constant and learns nothing, all its hidden units being below 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_avg = nn.Conv2d(width, width, kernel_size=1, bias=False)
        self.linear_avg = nn.Linear(width, width)
        self.conv_max = nn.Conv2d(width, width, kernel_size=1, bias=False)
        self.linear_max = nn.Linear(width, width)
        hidden = nn.Linear(1, 4)
        nn.init.uniform_(hidden.bias, 0, 1)
        self.bottleneck = nn.Sequential(hidden, nn.ReLU(), nn.Linear(4, 1))

    def joint(self) -> tuple[Tensor, Tensor]:
        """Weight [2 C, C] and bias [2 C] of both branches before their ReLU, the average's first."""
        average = self.linear_avg.weight @ self.conv_avg.weight.flatten(1)
        largest = self.linear_max.weight @ self.conv_max.weight.flatten(1)
        return torch.cat([average, largest]), torch.cat([self.linear_avg.bias, self.linear_max.bias])

    def gate(self, pixels: Tensor) -> Tensor:
        """pixels: [N, C]. Returns [N, 1]."""
        average, largest = functional.linear(pixels, *self.joint()).chunk(2, dim=1)
        mean = average.relu() @ average.new_full((average.shape[1], 1), 1 / average.shape[1])  # faster than `mean`
        return self.bottleneck(mean + largest.max(dim=1, keepdim=True).values.relu())

    def forward(self, maps: Tensor, head: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """maps: [B, C, H, W], fastest with channels last; head: a 1x1 convolution to K channels.

        Returns the gated maps and the head's answer to them, [B, K, H, W].
        """
        shape = (maps.shape[0], *maps.shape[2:], -1)
        pixels = maps.permute(0, 2, 3, 1).flatten(0, 2)
        if _in_chunks(pixels):
            hidden, last = cast(nn.Linear, self.bottleneck[0]), cast(nn.Linear, self.bottleneck[2])
            parts = (*self.joint(), hidden.weight, hidden.bias, last.weight, last.bias, head.weight, head.bias)
            gated, answer = cast(tuple[Tensor, Tensor], _Gated.apply(pixels, *parts))
        else:
            gated = self.gate(pixels) * pixels
            answer = functional.linear(gated, head.weight.flatten(1), head.bias)
        return gated.view(shape).permute(0, 3, 1, 2), answer.view(shape).permute(0, 3, 1, 2)


def _in_chunks(pixels: Tensor) -> bool:
    reduced = torch.is_autocast_enabled(pixels.device.type)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    return not reduced and pixels.device.type == "cpu"


class _Gated(torch.autograd.Function):
    """(pixels [N, C], joint weight and bias, hidden weight [4, 1] and bias, last weight [1, 4] and bias, head's weight
    [K, C, 1, 1] and bias) -> gated pixels [N, C] and the head's answer [N, K].
    """

    @staticmethod
    def forward(
        ctx: Any,
        pixels: Tensor,
        weight: Tensor,
        bias: Tensor,
        hidden: Tensor,
        hidden_bias: Tensor,
        last: Tensor,
        last_bias: Tensor,
        head: Tensor,
        head_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count, width = pixels.shape
        head = head.flatten(1)
        positive = torch.empty(count, width, dtype=torch.bool)
        place = torch.empty(count, 1, dtype=torch.long)
        summed, largest, gates = (pixels.new_empty(count, 1) for _ in range(3))
        gated, answer = torch.empty_like(pixels), pixels.new_empty(count, len(head))
        mean = pixels.new_full((width, 1), 1 / width)
        for chunk in _chunks(count, width):
            branches = torch.addmm(bias, pixels[chunk], weight.t())
            average = branches[:, :width].relu()
            torch.gt(average, 0, out=positive[chunk])
            torch.max(branches[:, width:], dim=1, keepdim=True, out=(largest[chunk], place[chunk]))
            torch.addmm(largest[chunk].clamp_min(0), average, mean, out=summed[chunk])
            units = torch.addcmul(hidden_bias, summed[chunk], hidden.t()).relu_()
            torch.addmm(last_bias, units, last.t(), out=gates[chunk])
            torch.mul(pixels[chunk], gates[chunk], out=gated[chunk])
            torch.addmm(head_bias, gated[chunk], head.t(), out=answer[chunk])
        ctx.save_for_backward(pixels, weight, hidden, hidden_bias, last, head, summed, gates, largest, positive, place)
        return gated, answer

    @staticmethod
    def backward(ctx: Any, of_gated: Tensor, of_answer: Tensor) -> tuple[Tensor, ...]:
        pixels, weight, hidden, hidden_bias, last, head, summed, gates, largest, positive, place = ctx.saved_tensors
        count, width = pixels.shape
        of_pixels, of_gates = torch.empty_like(pixels), torch.empty_like(gates)
        of_weight, of_bias = torch.zeros_like(weight), pixels.new_zeros(2 * width)
        of_head = torch.zeros_like(head)
        of_units = pixels.new_empty(count, len(hidden))
        for chunk in _chunks(count, width):
            given = torch.addmm(of_gated[chunk], of_answer[chunk], head)
            torch.sum(given * pixels[chunk], dim=1, keepdim=True, out=of_gates[chunk])
            of_head.addmm_((of_answer[chunk] * gates[chunk]).t(), pixels[chunk])
            alive = torch.addcmul(hidden_bias, summed[chunk], hidden.t()) > 0
            torch.mul(of_gates[chunk] * last, alive, out=of_units[chunk])
            of_summed = of_units[chunk] @ hidden
            of_branches = pixels.new_zeros(len(given), 2 * width)
            torch.mul(positive[chunk], of_summed / width, out=of_branches[:, :width])
            of_branches.scatter_(1, place[chunk] + width, of_summed * (largest[chunk] > 0))
            of_weight.addmm_(of_branches.t(), pixels[chunk])
            of_bias += of_branches.sum(0)
            torch.addmm(given.mul_(gates[chunk]), of_branches, weight, out=of_pixels[chunk])
        units = torch.addcmul(hidden_bias, summed, hidden.t()).relu_()
        return (
            *(of_pixels, of_weight, of_bias),
            *(of_units.t() @ summed, of_units.sum(0), of_gates.t() @ units, of_gates.sum(0)),
            *(of_head[:, :, None, None], of_answer.sum(0)),
        )


def _chunks(count: int, width: int) -> list[slice]:
    rows = max(1, CHUNK // width)
    return [slice(first, first + rows) for first in range(0, count, rows)]
