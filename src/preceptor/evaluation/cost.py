"""What a network costs to use: parameters, latency and memory of one image, measured where the run was made."""

import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

WARM, TIMED = 3, 15


@torch.no_grad()
def measure_cost(network: nn.Module, image: Tensor, condition: Tensor | None = None) -> dict[str, float]:
    """parameters; latency_ms: median of 15 forward passes of one image [1, C, H, W]; memory_mb: weights plus the
    largest sum of tensors alive at a time during the pass, in 2**20 bytes.

    On CUDA the memory is the allocator's peak. Latency holds for this machine, its threads and float32.
    """
    network.eval()
    inputs = (image,) if condition is None else (image, condition)
    times = []
    for index in range(WARM + TIMED):
        _synchronise(image)
        began = time.perf_counter()
        network(*inputs)
        _synchronise(image)
        if index >= WARM:
            times.append(time.perf_counter() - began)
    weights = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "latency_ms": 1000 * statistics.median(times),
        "memory_mb": (weights + _peak(network, inputs)) / 2**20,
    }


def _synchronise(image: Tensor) -> None:
    if image.is_cuda:
        torch.cuda.synchronize(image.device)


def _peak(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Bytes of intermediate tensors at the worst moment of a forward pass."""
    device = inputs[0].device
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        network(*inputs)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        network(*inputs)
    alive = worst = 0
    for event in _allocations(profile):
        alive += event
        worst = max(worst, alive)
    return worst


def _allocations(profile: Any) -> list[int]:
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
