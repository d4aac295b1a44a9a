"""The teacher's training step on cached report features against the same step with a frozen BERT-base in the loop.

The BERT has random weights, which cost what trained ones do; it runs without gradient, in the step's own precision, on
token numbers that are ready: the least that a loop with a language model can do.
"""

from collections.abc import Callable, Iterator

import torch

from benchmarks.scene import BATCH, LOSS, TOKENS, Setting, batch, our_steps, plain_loop, teacher
from benchmarks.table import Row
from preceptor.data.loading import Batch
from preceptor.learning.privilege import report
from preceptor.learning.tasks import Supervised


def rows(setting: Setting) -> Iterator[Row]:
    shown = batch(setting)
    for size, rounds in setting.sizes.items():
        step = _with_bert(setting, size, shown)
        task = Supervised(teacher(setting, size), report, LOSS)
        times = our_steps(setting, f"teacher-{size}", task, shown, step, max(4, rounds // 2))
        yield Row.of_times(f"cached reports against BERT in the loop, teacher {size}", times, size == setting.weighed)


def _with_bert(setting: Setting, size: str, shown: Batch) -> Callable[[], object]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(setting.seed)
    bert = BertModel(BertConfig(), add_pooling_layer=False).requires_grad_(False).to(setting.device).eval()
    words = torch.randint(bert.config.vocab_size, (BATCH, TOKENS), device=setting.device)
    loop = plain_loop(setting, teacher(setting, size))

    def step() -> None:
        with torch.no_grad(), loop.autocast():
            features = bert(input_ids=words, attention_mask=torch.ones_like(words)).last_hidden_state
        loop.step(shown.image, shown.mask, features.float())

    return step


def prepare(_: Setting) -> None:
    """Import the BERT before memory is measured."""
    from transformers import BertConfig, BertModel  # noqa: F401


def ours(setting: Setting, steps: int) -> None:
    """For the measurement of memory: our steps alone."""
    our_steps(
        setting, "teacher", Supervised(teacher(setting, setting.weighed), report, LOSS), batch(setting), None, steps, 0
    )


def baseline(setting: Setting, steps: int) -> None:
    """The same with the BERT."""
    step = _with_bert(setting, setting.weighed, batch(setting))
    for _ in range(steps):
        step()
