"""A base's tokenizer, from `tokenizer.json` alone, and only one that takes every text.

The library's own loader follows other files of a base to any path on the disk: a `vocab` in `tokenizer_config.json`
would make a hospital's records the vocabulary. Here a tokenizer is built from bytes that were looked at, from parts
that cannot grow a chosen text without end, and with no id that the encoder has no embedding for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from common.base_config import read_json_object
from common.errors import ConfigError
from common.row_failures import is_failure

TOKENIZER_NAME = "tokenizer.json"
_LIMIT_BYTES = 64 << 20
_MOST_PARTS = 8
_TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token")
_TOKEN_KEYS = frozenset({"__type", "content", "lstrip", "rstrip", "normalized", "single_word", "special"})
_SIDES = ("padding_side", "truncation_side")
_FIELDS = frozenset(
    "version truncation padding added_tokens normalizer pre_tokenizer post_processor decoder model".split()
)
# Each gives at most a few characters for one. Not here: Precompiled (maps a character to any string), Prepend, Replace
# with a pattern of the coordinator's, which takes hours on the right text.
_PARTS: Mapping[str, frozenset[str]] = {
    "normalizer": frozenset(
        "BertNormalizer Lowercase NFC NFD NFKC NFKD Nmt Replace Sequence Strip StripAccents".split()
    ),
    "pre_tokenizer": frozenset(
        "BertPreTokenizer ByteLevel Digits Metaspace Punctuation Sequence Whitespace WhitespaceSplit".split()
    ),
    "post_processor": frozenset("BertProcessing ByteLevel RobertaProcessing Sequence TemplateProcessing".split()),
}
_INSIDE = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}
_MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a base.

    Guarantees:
        Three files are read, all in the folder: `tokenizer.json`, and of `tokenizer_config.json` and
        `special_tokens_map.json` the special tokens, the sides and nothing else. No key of theirs is ever a path.

    Raises:
        ConfigError: When there is no `tokenizer.json`, or it holds what no base may have.
    """
    path = folder / TOKENIZER_NAME
    if not path.is_file():
        raise ConfigError(
            "the base model has no tokenizer.json",
            hint='write one where you trust the folder: python -c "from transformers import AutoTokenizer as T; '
            "T.from_pretrained('FOLDER').save_pretrained('FOLDER')\"",
        )
    values = read_json_object(path, _LIMIT_BYTES)
    fault = next(_faults(values), None)
    if fault is not None:
        raise ConfigError(f"tokenizer.json of the base model {fault}", hint="use a base with a plain tokenizer")
    try:
        tokenizer = Tokenizer.from_str(json.dumps(values))
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_settings(folder))
    except BaseException as error:  # the library panics, too
        if isinstance(error, ConfigError) or not is_failure(error):
            raise
        raise ConfigError("tokenizer.json of the base model is damaged", hint="copy the base model again") from None


def check_ids(tokenizer: PreTrainedTokenizerFast, embeddings: int) -> None:
    """Refuse a tokenizer that could give an id without an embedding: it would fail on the texts of its choice.

    Args:
        tokenizer: From `load_tokenizer`.
        embeddings: Rows of the encoder's embedding.

    Raises:
        ConfigError: When an id of vocabulary, added tokens or post-processor is too large.
    """
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    largest = max([*tokenizer.get_vocab().values(), *_processor_ids(inner.get("post_processor"))], default=-1)
    if not 0 <= largest < embeddings:
        raise ConfigError(
            f"the base model's tokenizer has the id {largest}, and its encoder {embeddings} embeddings",
            hint="use the tokenizer that belongs to the encoder",
        )


# --- tokenizer.json ---


def _faults(values: Mapping[str, Any]) -> Iterator[str]:
    unknown = sorted(set(values) - _FIELDS)
    if unknown:
        yield f"has the unknown key {unknown[0][:64]!r}"
    for field in _PARTS:
        yield from _part_faults(field, values.get(field))
    yield from _model_faults(values.get("model"))


def _part_faults(field: str, part: object) -> Iterator[str]:
    parts = list(_flat(field, part))
    kinds = [piece.get("type") for piece in parts]
    if len(parts) > _MOST_PARTS or kinds.count("ByteLevel") > 1:  # each ByteLevel doubles what is not ASCII
        yield f"has too many parts in its {field}"
    for piece, kind in zip(parts, kinds, strict=True):
        if kind not in _PARTS[field]:
            yield f"has a {field} {str(kind)[:64]!r}, which is not on the list of those that take every text"
        elif kind == "Replace" and not _replaces_plainly(piece):
            yield "replaces by a pattern, or with something longer"
        elif kind == "TemplateProcessing" and not _holds_text_once(piece):
            yield "does not hold the text exactly once in its post_processor"


def _flat(field: str, part: object) -> Iterator[dict[str, Any]]:
    """The parts of a sequence, one deep; what is no part at all comes as an empty one."""
    if part is None:
        return
    whole = part if isinstance(part, dict) else {}
    inside = whole.get(_INSIDE[field])
    if whole.get("type") != "Sequence" or not isinstance(inside, list):
        yield whole
        return
    for piece in inside:
        plain = isinstance(piece, dict) and piece.get("type") != "Sequence"
        yield piece if plain else {}


def _replaces_plainly(piece: Mapping[str, Any]) -> bool:
    pattern, content = piece.get("pattern"), piece.get("content")
    text = pattern.get("String") if isinstance(pattern, dict) else None
    return isinstance(text, str) and isinstance(content, str) and len(content.encode()) <= len(text.encode())


def _holds_text_once(piece: Mapping[str, Any]) -> bool:
    single = piece.get("single")
    return isinstance(single, list) and sum(isinstance(part, dict) and "Sequence" in part for part in single) == 1


def _model_faults(model: object) -> Iterator[str]:
    if not isinstance(model, dict) or model.get("type") not in _MODELS:
        yield f"has a model that is none of {', '.join(_MODELS)}"
    elif model.get("dropout"):
        yield "cuts words at random"
    elif not _takes_unknown(model):
        yield "has no token for what it does not know"


def _takes_unknown(model: Mapping[str, Any]) -> bool:
    """Whether a word outside the vocabulary becomes a token, or nothing, instead of an error."""
    vocabulary, token = model.get("vocab"), model.get("unk_token")
    if model["type"] == "Unigram":
        number = model.get("unk_id")
        return isinstance(vocabulary, list) and type(number) is int and 0 <= number < len(vocabulary)
    if model["type"] == "BPE" and token is None:
        return True
    return isinstance(vocabulary, dict) and isinstance(token, str) and token in vocabulary


def _processor_ids(part: object) -> Iterator[int]:
    """Ids that a post-processor puts around a text; they need not be in the vocabulary."""
    for piece in _flat("post_processor", part):
        yield from (piece[name][1] for name in ("sep", "cls") if name in piece)
        for token in piece.get("special_tokens", {}).values():
            yield from token["ids"]


# --- the other two files ---


def _settings(folder: Path) -> dict[str, Any]:
    """Special tokens and sides; whatever else the files say is passed over."""
    values: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            values |= read_json_object(folder / name, _LIMIT_BYTES)
    tokens = {name: _token(name, values[name]) for name in _TOKENS if values.get(name) is not None}
    return {**tokens, **{name: values[name] for name in _SIDES if values.get(name) in ("left", "right")}}


def _token(name: str, value: object) -> str | AddedToken:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not set(value) <= _TOKEN_KEYS or not isinstance(value.get("content"), str):
        raise ConfigError(f"{name} of the base model's tokenizer is no token", hint="copy the base model again")
    flags = {key: flag for key, flag in value.items() if key not in ("__type", "content")}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ConfigError(f"{name} of the base model's tokenizer is no token", hint="copy the base model again")
    return AddedToken(value["content"], **flags)
