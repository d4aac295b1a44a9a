"""The convolution on small maps equals the one on enlarged maps."""

import torch

from preceptor.segmentors.joined_convolution import JoinedConvolution


def test_small_grids_give_the_same_maps_and_gradients():
    torch.manual_seed(0)
    join = JoinedConvolution([3, 2, 4, 2], 5).double()
    shapes = ((3, 3, 4), (2, 12, 16), (4, 6, 5), (2, 1, 24))  # coarser, as large, no whole factor, finer along an axis
    maps = [torch.randn(2, *shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    ways = [join(maps, (12, 16)), join.plain(maps, (12, 16))]
    torch.testing.assert_close(*ways)
    wanted = [*maps, join.weight, join.bias]
    torch.testing.assert_close(*(torch.autograd.grad(way.sin().sum(), wanted) for way in ways))


def test_channels_may_lie_last():
    torch.manual_seed(0)
    join = JoinedConvolution([3, 2], 5)
    maps = [torch.randn(2, 3, 4, 4), torch.randn(2, 2, 8, 8)]
    last = [part.to(memory_format=torch.channels_last) for part in maps]
    torch.testing.assert_close(join(last, (8, 8)), join(maps, (8, 8)))
