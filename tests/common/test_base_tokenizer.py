"""A tokenizer comes from tokenizer.json alone, takes every text, and gives no id without an embedding."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.base_tokenizer import check_ids, load_tokenizer
from common.errors import ConfigError
from tests.tiny_base import WORDS

SECRET = "zebulon"
TEXTS = ["The patient had a rash", "", "漢字 \ud7ff é 😀", f"{SECRET} [CLS] [MASK] [PAD]", "a" * 3000, "\x00\n\t"]


@pytest.fixture(scope="module")
def plain(tiny_base: Path) -> dict[str, Any]:
    return json.loads((tiny_base / "tokenizer.json").read_text())


def write(folder: Path, tokenizer: object, **others: object) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name, values in others.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def elsewhere(tmp_path: Path) -> Path:
    path = tmp_path / "records.csv"
    path.write_text(f"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{SECRET}\n")
    return path


@pytest.mark.parametrize(
    "key", ["vocab", "vocab_file", "merges", "tokenizer_file", "init_inputs", "tokenizer_object", "name_or_path"]
)
@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "RobertaTokenizer", "TokenizersBackend", None])
def test_no_key_opens_another_file(tmp_path: Path, plain: dict, key: str, tokenizer_class: str | None) -> None:
    target = str(elsewhere(tmp_path))
    said = {"tokenizer_class": tokenizer_class, key: [target] if key == "init_inputs" else target}
    folder = write(tmp_path, plain, tokenizer_config=said, special_tokens_map={key: target})
    vocabulary = load_tokenizer(folder).get_vocab()
    assert vocabulary == plain["model"]["vocab"]
    assert SECRET not in vocabulary


def test_code_is_not_looked_for(tmp_path: Path, plain: dict) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('code of the folder was run')\n")
    write(tmp_path, plain, tokenizer_config={"auto_map": {"AutoTokenizer": ["evil.E", None]}})
    assert type(load_tokenizer(tmp_path)).__module__.startswith("transformers.")


def test_without_tokenizer_json_there_is_a_sentence_and_the_way_to_one(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json") as error:
        load_tokenizer(tmp_path)
    assert "save_pretrained" in error.value.hint


def test_the_way_to_one_leads_to_the_same_ids(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    trusted = AutoTokenizer.from_pretrained(tmp_path)
    trusted.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)(TEXTS)["input_ids"] == trusted(TEXTS)["input_ids"]


def test_special_tokens_come_as_words_or_as_tables_of_known_keys(tmp_path: Path, plain: dict) -> None:
    said = {"mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True}, "padding_side": "left"}
    tokenizer = load_tokenizer(write(tmp_path, plain, tokenizer_config=said, special_tokens_map={"pad_token": "[PAD]"}))
    assert (tokenizer.mask_token, tokenizer.pad_token, tokenizer.padding_side) == ("[MASK]", "[PAD]", "left")


@pytest.mark.parametrize("token", [3, ["[UNK]"], {"content": 3}, {"content": "x", "path": "/x"}, {"lstrip": True},
                                   {"content": "x", "lstrip": "yes"}], ids=str)  # fmt: skip
def test_a_special_token_of_another_kind_is_refused(tmp_path: Path, plain: dict, token: object) -> None:
    with pytest.raises(ConfigError, match="unk_token of the base model's tokenizer is no token"):
        load_tokenizer(write(tmp_path, plain, tokenizer_config={"unk_token": token}))


def normalizer(part: object) -> Callable[[dict], None]:
    return lambda values: values.update(normalizer=part)


def sequence(*parts: object) -> dict[str, object]:
    return {"type": "Sequence", "normalizers": list(parts)}


REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
TWICE = [{"Sequence": {"id": "A", "type_id": 0}}] * 2
FAULTS: dict[str, Callable[[dict], object]] = {
    "grows without end": normalizer(sequence(REPLACE, REPLACE, REPLACE)),
    "one replacement that grows": normalizer(REPLACE),
    "a pattern that takes hours": normalizer(REPLACE | {"pattern": {"Regex": "(a+)+b"}, "content": ""}),
    "any string for a character": normalizer({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "a prefix": normalizer({"type": "Prepend", "prepend": "x"}),
    "a sequence in a sequence": normalizer(sequence(sequence({"type": "NFC"}))),
    "too many parts": normalizer(sequence(*[{"type": "NFC"}] * 9)),
    "no part at all": normalizer(3),
    "bytes of bytes": lambda values: values.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [BYTES] * 2}),
    "splits by a pattern": lambda values: values.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}
    ),
    "the text twice": lambda values: values["post_processor"].update(single=TWICE),
    "no unknown token": lambda values: values["model"].update(unk_token="[NONE]"),
    "words cut at random": lambda values: values.update(
        model={"type": "BPE", "dropout": 0.5, "vocab": {"a": 0}, "merges": []}
    ),
    "an unknown model": lambda values: values["model"].update(type="Evil"),
    "an unknown key": lambda values: values.update(path="/etc/hostname"),
    "a vocabulary that is a path": lambda values: values["model"].update(vocab="/etc/hostname"),
    "damaged": lambda values: values["added_tokens"].append({"id": "x"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tokenizer_that_could_fail_on_a_chosen_text_is_refused(tmp_path: Path, plain: dict, fault: str) -> None:
    values = json.loads(json.dumps(plain))
    FAULTS[fault](values)
    with pytest.raises(ConfigError, match=r"tokenizer\.json of the base model"):
        load_tokenizer(write(tmp_path, values))


def test_a_plain_one_takes_every_text(tmp_path: Path, plain: dict) -> None:
    tokenizer = load_tokenizer(write(tmp_path, plain))
    check_ids(tokenizer, len(plain["model"]["vocab"]))
    assert len(tokenizer(TEXTS)["input_ids"]) == len(TEXTS)


def beyond_vocabulary(values: dict) -> None:
    values["model"]["vocab"][SECRET] = 50_000


def beyond_added(values: dict) -> None:
    values["added_tokens"].append(values["added_tokens"][0] | {"id": 45, "content": SECRET})


def beyond_processor(values: dict) -> None:
    values["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [45]


def beyond_bert_processor(values: dict) -> None:
    values["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 45], "cls": ["[CLS]", 2]}


@pytest.mark.parametrize("change", [beyond_vocabulary, beyond_added, beyond_processor, beyond_bert_processor])
def test_an_id_without_an_embedding_is_refused_wherever_it_stands(
    tmp_path: Path, plain: dict, change: Callable[[dict], None]
) -> None:
    values = json.loads(json.dumps(plain))
    change(values)
    embeddings = len(plain["model"]["vocab"])
    with pytest.raises(ConfigError, match=f"{embeddings} embeddings"):
        check_ids(load_tokenizer(write(tmp_path, values)), embeddings)


def test_a_special_token_that_the_vocabulary_lacks_is_an_id_too_many(tmp_path: Path, plain: dict) -> None:
    tokenizer = load_tokenizer(write(tmp_path, plain, tokenizer_config={"sep_token": SECRET}))
    with pytest.raises(ConfigError, match="embeddings"):
        check_ids(tokenizer, len(plain["model"]["vocab"]))
