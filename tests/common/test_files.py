import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from common.files import made_folder, write_durably, write_new_durably, write_together


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "state"
    write_durably(target, b"one")
    write_durably(target, b"two, longer")
    assert target.read_bytes() == b"two, longer"
    assert names(tmp_path) == ["state"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_the_one_asked_for(mode: int, tmp_path: Path) -> None:
    target = tmp_path / "key"
    write_durably(target, b"secret", mode=mode)
    assert stat.S_IMODE(target.stat().st_mode) == mode


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "state"
    write_durably(target, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail) if failing == "fsync" else monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_durably(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["state"]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("write", "owner", "failing"),
    [
        (write_durably, tempfile, "mkstemp"),
        (write_durably, os, "fsync"),
        (write_durably, Path, "replace"),
        (write_new_durably, tempfile, "mkstemp"),
        (write_new_durably, Path, "hardlink_to"),
    ],
)
def test_a_full_disk_names_the_file_that_was_asked_for(
    write: Callable[[Path, bytes], None], owner: object, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, failing, full)
    with pytest.raises(OSError, match="No space") as caught:
        write(tmp_path / "state", b"x")
    assert caught.value.filename == str(tmp_path / "state")


def test_of_several_files_none_is_new_when_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    write_together({first: b"old", second: b"old"})
    fsync, calls = os.fsync, []

    def second_is_too_much(handle: int) -> None:
        calls.append(handle)
        full() if len(calls) > 1 else fsync(handle)

    monkeypatch.setattr(os, "fsync", second_is_too_much)
    with pytest.raises(OSError, match="No space") as caught:
        write_together({first: b"new", second: b"new"})
    assert caught.value.filename == str(second)
    assert [path.read_bytes() for path in (first, second)] == [b"old", b"old"]
    assert names(tmp_path) == ["a", "b"]


def test_several_files_are_replaced_with_their_mode(tmp_path: Path) -> None:
    write_together({tmp_path / "a": b"1", tmp_path / "b": b"2"}, mode=0o600)
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"1", b"2"]
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"} == {0o600}
    assert names(tmp_path) == ["a", "b"]


def test_folders_made_in_vain_go_again_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="No space"), made_folder(tmp_path / "there" / "x" / "y"):
        full()
    with pytest.raises(OSError, match="No space"), made_folder(tmp_path / "there"):
        full()
    assert names(tmp_path) == ["there"]
    assert names(tmp_path / "there") == []
    with made_folder(tmp_path / "there" / "x"):
        pass
    assert names(tmp_path / "there") == ["x"]


def test_bytes_and_name_are_synced_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content before the rename, folder after it; otherwise a power cut may leave an empty file under the name."""
    seen: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_sync(handle: int) -> None:
        seen.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "content")
        fsync(handle)

    def spy_replace(path: Path, target: Path) -> Path:
        seen.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", spy_sync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    write_durably(tmp_path / "state", b"x")
    assert seen == ["content", "rename", "folder"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "none" / "state", b"x")


def test_a_new_file_is_made_with_its_mode_and_nothing_else_stays(tmp_path: Path) -> None:
    write_new_durably(tmp_path / "key", b"secret", mode=0o600)
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert names(tmp_path) == ["key"]


def test_a_new_file_never_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_new_durably(tmp_path / "key", b"new")
    assert (tmp_path / "key").read_bytes() == b"old"
    assert names(tmp_path) == ["key"]


def test_not_even_of_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_new_durably(tmp_path / "key", b"new")
    assert names(tmp_path) == ["key"]
