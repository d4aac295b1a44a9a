"""TextDiff's fusion block against the golden case, and the folded against the plain way."""

import pytest
import torch

from preceptor.originals.textdiff import official_name
from preceptor.segmentors.text_attention import TextAttention, TextBlock, TextMean


def test_block_and_its_parts_equal_the_original(golden):
    case = golden("textdiff_cross_block")
    block = TextBlock(768, 768, 8, 64)
    own = {
        official_name(f"cross1.{key}").removeprefix("classifier.fuse.0."): value for key, value in case.state.items()
    }
    block.load_state_dict(own)
    pixels, text = case.inputs["hidden"], case.inputs["text"]
    with torch.no_grad():
        first = block.attn1(pixels, text)
        second = block.attn2(first, text)
        case.assert_equal("norm1", block.attn1.norm(pixels))
        case.assert_equal("attn1", first - pixels)
        case.assert_equal("attn2", second - first)
        case.assert_equal("ff", block.feed(second) - second)
        case.assert_equal("out", block(pixels, text))


@pytest.mark.parametrize(("length", "batch"), [(1, 1), (3, 2), (9, 3)])
def test_folded_attention_equals_the_plain_one_with_all_gradients(length, batch):
    torch.manual_seed(0)
    attention = TextAttention(12, 7, 3, 4).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    pixels, text = torch.randn(batch, 6, 12).double(), torch.randn(batch, length, 7).double()
    given = [tensor.requires_grad_() for tensor in (pixels, text)]
    ways = [attention.folded(*given), attention.plain(*given)]
    torch.testing.assert_close(*ways)
    wanted = [*given, *attention.parameters()]
    gradients = [torch.autograd.grad(way.sin().sum(), wanted) for way in ways]
    torch.testing.assert_close(*gradients)


def test_mean_token_is_joined_to_every_pixel():
    torch.manual_seed(0)
    mean = TextMean(5, 3)
    pixels, text = torch.randn(2, 4, 5), torch.randn(2, 6, 3)
    joined = torch.cat([pixels, text.mean(1, keepdim=True).expand(-1, 4, -1)], dim=2)
    torch.testing.assert_close(mean(pixels, text), mean.mix(joined))
