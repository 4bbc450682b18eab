import shutil
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest

from common.machine import clock_finding, room_finding, stack_findings

NOW = datetime(2026, 11, 5, 9, 30, tzinfo=UTC)
Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "level"), [(500 * 2**20 - 1, "fail"), (2**30, "warn"), (2**34, "pass")])
def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 0, free))
    assert room_finding(tmp_path).level == level


def test_room_is_measured_on_the_folders_own_disk(tmp_path: Path) -> None:
    before = shutil.disk_usage(tmp_path).free
    told = float(room_finding(tmp_path).sentence.split()[0])
    # Others write and delete on that disk at the same time.
    assert told == pytest.approx(before / 2**30, rel=0.1)


@pytest.mark.parametrize(
    ("latest", "level"),
    [
        (None, "pass"),
        (NOW - timedelta(days=3), "pass"),
        (NOW + timedelta(seconds=2), "pass"),
        (NOW + timedelta(minutes=10), "fail"),
    ],
)
def test_own_clock(latest: datetime | None, level: str) -> None:
    assert clock_finding(NOW, latest).level == level


def asking(monkeypatch: pytest.MonkeyPatch, *lines: str) -> list[tuple[str, str]]:
    monkeypatch.setattr(metadata, "requires", lambda _: list(lines))
    return [(finding.level, finding.sentence) for finding in stack_findings("site")]


def test_this_environment_fits() -> None:
    assert [finding.level for finding in stack_findings("site")] == ["pass"]


def test_a_version_beyond_the_tested_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    own = metadata.version("numpy")
    assert asking(monkeypatch, "numpy<2")[0] == ("fail", f"numpy is {own}, and <2 was tested")
    assert asking(monkeypatch, f"numpy=={own}")[0][0] == "pass"


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asking(monkeypatch, "no-such-library-of-ours>=1", "numpy<2")
    assert found[0] == ("fail", "no-such-library-of-ours is not installed")
    assert len(found) == 2


def test_other_extras_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    line = 'no-such-library-of-ours; extra == "{}"'
    assert asking(monkeypatch, line.format("coordinator"))[0][0] == "pass"
    assert asking(monkeypatch, line.format("site"))[0][0] == "fail"


def test_a_build_of_a_version_is_that_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "2.13.0+cpu")
    assert asking(monkeypatch, "torch==2.13.0")[0][0] == "pass"


def test_cloister_itself_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.level for finding in stack_findings("site", "no-such-library-of-ours")] == ["warn"]
