"""Text encoders that are published as a pickle only, as Bio_ClinicalBERT is, made safe to load: once, by command."""

import shutil
from pathlib import Path

from preceptor.errors import StorageError
from preceptor.storage import replacing, write_tensors
from preceptor.weights import read_checkpoint

BESIDE = ("config.json", "vocab.txt", "tokenizer_config.json")


def convert_encoder(checkpoint: Path | str, out: Path | str) -> Path:
    """Write the BERT tensors of a `pytorch_model.bin` as `model.safetensors` into the folder `out`, which it returns.

    The pickle is read in a process of its own, tensors only; `config.json` and `vocab.txt` beside it are copied.
    Raises UntrustedFileError for a pickle that would run code, StorageError where there is no BERT in it.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if checkpoint.is_dir():
        checkpoint = checkpoint / "pytorch_model.bin"
    missing = [name for name in BESIDE[:2] if not (checkpoint.parent / name).is_file()]
    if missing:
        raise StorageError(
            "the encoder's other files must lie beside its weights",
            where=checkpoint.parent,
            offenders=missing,
            remedy="download them from the page of the model",
        )
    tensors = {name.removeprefix("bert."): tensor for name, tensor in read_checkpoint(checkpoint).items()}
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(("embeddings.", "encoder."))}
    if not kept:
        raise StorageError("there is no BERT in this file", where=checkpoint, offenders=list(tensors))
    for name in BESIDE:
        source = checkpoint.parent / name
        if source.is_file() and out.resolve() != checkpoint.parent.resolve():
            with replacing(out / name) as temporary:
                shutil.copyfile(source, temporary)
    write_tensors(out / "model.safetensors", kept)
    return out
