"""A tiny BERT in a folder, as the hub would give it."""

import json
from pathlib import Path
from typing import Any

import pytest

WORDS = "unilateral bilateral pulmonary infection one two infected area areas upper lower left right lung and , ."


@pytest.fixture(scope="session")
def tiny_bert() -> Any:
    """A function that writes a tiny BERT: (folder, prefix of its keys, changes of config.json) -> folder."""
    import torch
    from transformers import BertConfig, BertModel

    from preceptor.storage import write_tensors

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), "##s"]
    sizes = {"vocab_size": len(pieces), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 40}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = BertModel(BertConfig(**sizes), add_pooling_layer=True).state_dict()

    def write(folder: Path, prefix: str = "", **changes: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / "model.safetensors", {prefix + key: tensor for key, tensor in state.items()})
        (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
        (folder / "config.json").write_text(json.dumps({"model_type": "bert", **sizes, **changes}))
        return folder

    return write
