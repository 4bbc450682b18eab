from pathlib import Path
from typing import Any

import pytest

from common.config_file import anchor_path, read_toml
from common.errors import ConfigError


def test_a_toml_file_becomes_tables(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("rounds = 3\n[privacy]\nε = 'x'\n".replace("ε", '"ε"'), encoding="utf-8")
    assert read_toml(tmp_path / "run.toml") == {"rounds": 3, "privacy": {"ε": "x"}}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"rounds = \n", "is not TOML"),
        (b"a = 1\na = 2\n", "is not TOML"),
        (b"name = '\xff'\n", "cannot be read: UnicodeDecodeError"),
    ],
)
def test_a_bad_file_is_one_sentence_and_a_hint(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_toml(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_toml(tmp_path / "none.toml")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, not a config file"):
        read_toml(tmp_path)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"folder": "data"}, {"folder": "/base/data"}),
        ({"folder": "../data"}, {"folder": "/data"}),
        ({"folder": "/data"}, {"folder": "/data"}),
        ({"folder": "package:name/model"}, {"folder": "package:name/model"}),
        ({"folder": 3}, {"folder": 3}),
        ({"folder": ["a", "package:b", 3]}, {"folder": ["/base/a", "package:b", 3]}),
        ({}, {"folder": "/base"}),
        ([], []),
        (None, None),
    ],
)
def test_a_relative_path_starts_at_the_files_folder(table: Any, expected: Any) -> None:
    anchor_path(table, "folder", Path("/base"), ".")
    assert table == expected


def test_a_path_that_is_left_out_stays_out() -> None:
    table: dict[str, Any] = {}
    anchor_path(table, "folder", Path("/base"))
    assert table == {}
