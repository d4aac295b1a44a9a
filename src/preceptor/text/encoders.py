"""Text encoders by the names that recipes use: the embedded `hashed`, and any BERT by Hugging Face id or local folder.

No remote code: of a model's repository only the numbers in `config.json`, the vocabulary and safetensors weights are
read, and they fill transformers' own `BertModel`. So CXR-BERT, whose repository wants to run its own classes, works by
its plain `bert.` weights. The last hidden state of all `length` tokens is used, padding included (TextFreeKD).
"""

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from preceptor.errors import RecipeError, StorageError, UntrustedFileError
from preceptor.extras import require_extra
from preceptor.recipe_data import ReportRecipe
from preceptor.storage import hash_file, hash_json, read_tensors
from preceptor.text.hashed import HashedEncoder

if TYPE_CHECKING:
    from torch import Tensor

ENCODERS: dict[str, tuple[str, str | None]] = {
    "hashed": ("embedded token vectors that come from a hash; needs no download", None),
    "microsoft/BiomedVLP-CXR-BERT-specialized": ("chest X-ray reports; the encoder of TextFreeKD and LanGuide", "v1.1"),
    "emilyalsentzer/Bio_ClinicalBERT": ("clinical notes", None),
    "dmis-lab/biobert-v1.1": ("biomedical abstracts", None),
    "google-bert/bert-base-uncased": ("general English", None),
}
"""Name to (one line, revision that is taken when the recipe names none)."""

NUMBERS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id"),
)
"""The fields of `config.json` that are read; all others, such as addresses of code, are left alone."""
FAMILIES = ("bert", "cxr-bert")
FILES = ["config.json", "vocab.txt", "tokenizer_config.json", "*.safetensors"]
CONVERT = (
    "convert them once with `preceptor import-weights pytorch_model.bin --architecture text-encoder --out FOLDER`, "
    "and name that folder"
)
MOVING = ("main", "master", "HEAD")
SECONDS = 5


class Encoder(Protocol):
    """From texts to token features.

    identity: changes with anything that changes the features. length, width: of the features. limit: the largest
    `length` that the encoder can take, None where there is no bound.
    """

    @property
    def identity(self) -> str: ...

    @property
    def length(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def limit(self) -> int | None: ...

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens of each text with its special ones, before it is cut to `length`."""
        ...

    def encode(self, texts: list[str]) -> "Tensor":
        """float32 [N, length, width] on the processor."""
        ...


def build_encoder(reports: ReportRecipe) -> Encoder:
    """The encoder of a recipe, downloaded where it must be.

    Raises RecipeError for a model without a fixed revision or of another family, StorageError where it cannot be had
    or is damaged, UntrustedFileError where its weights are pickled.
    """
    if reports.encoder == "hashed":
        return HashedEncoder(reports.length, reports.width)
    require_extra("transformers", "text", f"the encoder {reports.encoder}")
    folder = Path(reports.encoder).expanduser()
    if folder.is_dir():
        return BertEncoder(folder, folder.resolve().name, reports.length)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", reports.encoder):
        raise RecipeError(
            "this is neither a known encoder, nor a folder, nor a Hugging Face id",
            where="reports.encoder",
            found=reports.encoder,
            expected="hashed, a folder, or an id such as microsoft/BiomedVLP-CXR-BERT-specialized",
        )
    revision = reports.revision or ENCODERS.get(reports.encoder, ("", None))[1]
    if revision is None or revision in MOVING:
        raise RecipeError(
            "an encoder from the hub needs a fixed revision, since its files may change",
            where="reports.revision",
            found=revision or "none",
            expected="a commit or a tag",
            remedy=f"copy the commit from https://huggingface.co/{reports.encoder}/commits/main",
        )
    folder = _download(reports.encoder, revision)
    return BertEncoder(folder, f"{reports.encoder}@{revision}", reports.length)


def describe() -> list[tuple[str, str]]:
    """(name, one line) of the encoders that are known to work; any other BERT works by id or folder."""
    return [(name, line) for name, (line, _) in ENCODERS.items()]


def _download(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(local: bool) -> Path:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=FILES, local_files_only=local, etag_timeout=SECONDS
            )
        )

    with contextlib.suppress(OSError, ValueError):
        folder = fetch(local=True)
        if any(folder.glob("*.safetensors")) and (folder / "vocab.txt").is_file():
            return folder
    try:
        return fetch(local=False)
    except (OSError, ValueError) as error:
        raise StorageError(
            "the text encoder is not on this machine and cannot be downloaded",
            where=f"reports.encoder {name}",
            found=str(error).strip().splitlines()[0],
            remedy="connect once and run `preceptor embed`; or copy the model's folder here and name the folder; "
            "or set `reports.encoder: hashed`, which needs no download",
        ) from error


class BertEncoder:
    """A frozen BERT in evaluation mode.

    folder: with config.json, vocab.txt and safetensors weights. name: for the identity; the weights' hash is part of
    it, so a folder may move.
    """

    def __init__(self, folder: Path, name: str, length: int = 24) -> None:
        from transformers import BertConfig, BertTokenizer

        settings = _read_settings(folder)
        self.folder, self.length = folder, length
        self.width, self.limit = int(settings["hidden_size"]), int(settings["max_position_embeddings"])
        if not 2 <= length <= self.limit:
            raise RecipeError(
                "the encoder cannot take so many tokens",
                where="reports.length",
                found=length,
                expected=f"2 to {self.limit}",
            )
        vocabulary = _needed(folder, "vocab.txt", "the word pieces of the tokenizer")
        lower = bool(_read_json(folder / "tokenizer_config.json", {}).get("do_lower_case", True))
        self.tokenizer = BertTokenizer(vocab=str(vocabulary), do_lower_case=lower)
        if len(self.tokenizer) > settings["vocab_size"]:
            raise StorageError(
                "the vocabulary is larger than the encoder's table",
                where=vocabulary,
                found=len(self.tokenizer),
                expected=f"at most {settings['vocab_size']}",
            )
        weights = _weight_files(folder)
        self.model = _load(BertConfig(**settings), weights)
        parts = {"settings": settings, "lower": lower, "length": length, "vocabulary": hash_file(vocabulary)}
        self.identity = f"{name}/{hash_json({**parts, 'weights': [hash_file(file) for file in weights]})[:16]}"

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens of each text with [CLS] and [SEP], before it is cut to `length`."""
        return [len(self.tokenizer.tokenize(text)) + 2 for text in texts]

    def encode(self, texts: list[str]) -> "Tensor":
        """float32 [N, length, width]: the last hidden state, texts cut or padded to `length` tokens."""
        import torch

        if not texts:
            return torch.empty(0, self.length, self.width)
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        with torch.no_grad():
            hidden: Tensor = self.model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).last_hidden_state
        return hidden.float()


def _read_settings(folder: Path) -> dict[str, Any]:
    content = _read_json(_needed(folder, "config.json", "the encoder's sizes"), {})
    family = content.get("model_type")
    if family not in FAMILIES:
        raise RecipeError(
            "this model is no BERT",
            where=folder,
            found=f"model_type {family}",
            expected=f"one of {', '.join(FAMILIES)}",
            remedy="take a BERT, or `reports.encoder: hashed`",
        )
    return {"max_position_embeddings": 512, "vocab_size": 30522, "hidden_size": 768} | {
        key: content[key] for key in NUMBERS if key in content
    }


def _read_json(path: Path, default: dict[str, Any]) -> dict[str, Any]:
    if not path.is_file():
        return default
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError("the file is not readable as JSON", where=path, found=str(error)) from error
    return content if isinstance(content, dict) else default


def _needed(folder: Path, name: str, purpose: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise StorageError(
            f"the encoder's folder has no {name}: {purpose}",
            where=folder,
            expected="config.json, vocab.txt, model.safetensors",
            remedy="copy the model's folder completely",
        )
    return path


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted(folder.glob("pytorch_model*.bin"))
    if pickled:
        raise UntrustedFileError(
            "the encoder's weights are pickled, and a pickle can execute code when it is loaded",
            where=pickled[0],
            expected="model.safetensors",
            remedy=CONVERT,
        )
    raise StorageError(
        "the encoder has no safetensors weights",
        where=folder,
        expected="model.safetensors",
        remedy=f"take a revision that has them; or download the model's files and {CONVERT}",
    )


def _load(config: Any, files: list[Path]) -> Any:
    from transformers import BertModel

    model = BertModel(config, add_pooling_layer=False)
    state: dict[str, Any] = {}
    for file in files:
        for key, tensor in read_tensors(file)[0].items():
            name = key.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
            state[name.replace("LayerNorm.beta", "LayerNorm.bias")] = tensor.float()
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in state]
    wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or wrong:
        raise StorageError(
            "the weights do not fit the encoder that config.json describes",
            where=files[0],
            found=f"{len(missing)} tensors missing, {len(wrong)} of another shape",
            offenders=[*missing, *wrong],
            remedy="copy the model's folder completely, weights and config.json of one revision",
        )
    model.load_state_dict({key: state[key] for key in wanted})
    return model.eval().requires_grad_(False)
