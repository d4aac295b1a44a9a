"""What a network costs to use: parameters, operations, latency and memory of one image, measured where it was run."""

import statistics
import time
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WARM, TIMED = 3, 15


@torch.no_grad()
def measure_cost(network: nn.Module, image: Tensor, condition: Tensor | None = None) -> dict[str, float]:
    """parameters; gflops: `count_flops` in 10**9; latency_ms: median of 15 forward passes of one image [1, C, H, W];
    memory_mb: weights plus the largest sum of tensors alive at a time during the pass, in 2**20 bytes.

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
        "gflops": count_flops(network, *inputs) / 1e9,
        "latency_ms": 1000 * statistics.median(times),
        "memory_mb": (weights + _peak(network, inputs)) / 2**20,
    }


@torch.no_grad()
def count_flops(network: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of one forward pass: 2 for each multiply-add of convolutions, matrix products and
    attention, counted as the pass runs. Normalisation, activations and resizing are not counted.

    Attention is run as plain matrix products for this, since fused kernels count differently or not at all.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


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
    with _Alive() as alive:
        network(*inputs)
    return alive.worst


class _Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that operations return for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.worst = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self.seen:
            return
        size = storage.nbytes()
        self.seen.add(key)
        self.now += size
        self.worst = max(self.worst, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size
