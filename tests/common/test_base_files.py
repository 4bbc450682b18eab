import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.base_files import INDEX_NAME, file_names, find_base, find_copy, identify_base, is_copy
from common.canonical import file_digest
from common.errors import ConfigError, IntegrityError
from common.plan import BaseIdentity


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def test_the_identity_names_every_file_that_decides(tiny_base: Path) -> None:
    identity = identify_base(tiny_base, "tiny")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(identity.files)
    assert identity.files["config.json"] == file_digest(tiny_base / "config.json")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_changed_file_is_another_base(name: str, folder: Path) -> None:
    before = identify_base(folder, "tiny")
    with (folder / name).open("ab") as stream:
        stream.write(b" ")
    assert identify_base(folder, "tiny") != before


def leave_out(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (shutil.rmtree, "does not exist"),
        (leave_out("config.json"), "lacks config.json or safetensors weights"),
        (leave_out("model.safetensors"), "lacks config.json or safetensors weights"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "is an adapter, not a base model"),
    ],
)
def test_what_is_no_base_folder_is_one_sentence(damage: Callable[[Path], None], sentence: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ConfigError, match=sentence) as caught:
        find_base(str(folder))
    assert caught.value.hint


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        find_base(str(folder))


def test_a_base_in_an_installed_package() -> None:
    with pytest.raises(ConfigError, match="package no_such_package is not installed"):
        find_base("package:no_such_package/model")
    with pytest.raises(ConfigError, match=r"lacks config\.json"):
        find_base("package:peft/tuners")


def test_a_package_is_found_without_running_any_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    for package in (inner.parent, inner):
        (package / "__init__.py").write_text("raise SystemExit('the code of a package was run')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"lacks config\.json"):
        find_base("package:outer/inner")
    with pytest.raises(ConfigError, match=r"package outer\.inner is not installed"):
        find_base("package:outer.inner/model")


def test_torch_is_not_needed_to_look_for_a_base() -> None:
    code = "import sys, common.base_files; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def identity_with(*names: str) -> BaseIdentity:
    return BaseIdentity(name="some", files=dict.fromkeys(names, "0" * 64))


def test_the_names_of_a_base_are_in_order(tiny_base: Path) -> None:
    identity = identify_base(tiny_base, "tiny")
    assert file_names(identity) == tuple(sorted(identity.files))
    assert file_names(identity_with("model-2.safetensors", INDEX_NAME, "model-1.safetensors", "config.json")) == (
        "config.json", "model-1.safetensors", "model-2.safetensors", INDEX_NAME,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "sub\\model.safetensors",
        ".model.safetensors",
        ".safetensors",
        "..",
        "",
        "model.safetensors\n",
        "model.safetensors\0",
        "modèle.safetensors",
        "-rf.safetensors",
        "m" * 130 + ".safetensors",
        "pytorch_model.bin",
        "modeling.py",
        "adapter_config.json",
        "CONFIG.JSON",
        "notes.txt",
    ],
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="which no base may have") as caught:
        file_names(identity_with("config.json", name))
    assert caught.value.hint


def test_a_copy_is_found_by_its_hashes_wherever_it_lies(tiny_base: Path, folder: Path, tmp_path: Path) -> None:
    base = identify_base(tiny_base, "another name")
    nowhere = [str(tmp_path / "nowhere"), "package:no_such_package/model", str(tmp_path)]
    assert find_copy([*nowhere, str(folder), str(tiny_base)], base) == folder
    assert find_copy(nowhere, base) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "tokenizer.json").write_bytes(b"{}"),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "more.safetensors").write_bytes(b""),
        lambda folder: (folder / "feature_map.safetensors").write_bytes(b""),
    ],
)
def test_a_folder_with_other_files_is_no_copy(damage: Callable[[Path], object], tiny_base: Path, folder: Path) -> None:
    base = identify_base(tiny_base, "tiny")
    assert is_copy(folder, base)
    damage(folder)
    assert not is_copy(folder, base)
    assert find_copy([str(folder)], base) is None


def write_index(folder: Path, content: bytes) -> BaseIdentity:
    (folder / INDEX_NAME).write_bytes(content)
    return identify_base(folder, "tiny")


def test_an_index_of_the_bases_own_files_is_good(folder: Path) -> None:
    base = write_index(folder, json.dumps({"weight_map": {"one": "model.safetensors"}}).encode())
    assert find_copy([str(folder)], base) == folder


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"weight_map": {"one": "model.safetensors", "two": "../../model.safetensors"}}).encode(),
        json.dumps({"weight_map": {"one": "/model.safetensors"}}).encode(),
        json.dumps({"weight_map": {"one": ["model.safetensors"]}}).encode(),
        json.dumps({"weight_map": ["model.safetensors"]}).encode(),
        b"{}",
        b"[]",
        b"no JSON",
        b"\xff",
        b"[" * 100_000,
        b" " * (16 * 2**20 + 1),
    ],
    ids=range(10),
)
def test_an_index_that_leads_out_of_the_folder_is_refused(content: bytes, folder: Path) -> None:
    base = write_index(folder, content)
    with pytest.raises(IntegrityError, match="names a file that the plan does not"):
        find_copy([str(folder)], base)
