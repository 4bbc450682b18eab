import pytest

from common.errors import UsageError
from server.run_export import export_run
from server.runs import Run


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "adapter").mkdir(parents=True)
    for name in (
        "adapter/adapter_config.json",
        "model-card.md",
        "results.json",
        "signed-plan.json",
        "checkpoint.safetensors",
    ):
        (folder / name).write_text(name)
        (folder / name).chmod(0o600)
    return Run(folder, None)


def test_a_result_is_copied_and_nothing_else_of_the_run(run, tmp_path):
    export_run(run, tmp_path / "out")
    found = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    assert found == ["adapter/adapter_config.json", "model-card.md", "results.json", "signed-plan.json"]
    assert (tmp_path / "out" / "model-card.md").stat().st_mode & 0o044  # to be handed on
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


@pytest.mark.parametrize("make", ["mkdir", "touch"])
def test_nothing_is_overwritten(run, tmp_path, make):
    getattr(tmp_path / "out", make)()
    with pytest.raises(UsageError, match="nothing is overwritten"):
        export_run(run, tmp_path / "out")


def test_a_dry_run_writes_nothing(run, tmp_path):
    assert "results.json" in export_run(run, tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_half_written(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        export_run(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_place_without_a_folder_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match="is no folder"):
        export_run(run, tmp_path / "no" / "out")
