import json
import shutil
from pathlib import Path

import pytest
import typer

from common.command_line import outer_door
from server.commands.doctor import doctor
from server.home import CoordinatorHome
from tests.federation_play import make_federation

app = typer.Typer()
app.command()(doctor)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    folder = tmp_path_factory.mktemp("federation")
    return make_federation(folder, folder, ()).coordinator


@pytest.fixture
def home(original: CoordinatorHome, tmp_path: Path) -> CoordinatorHome:
    copy = CoordinatorHome(Path(shutil.copytree(original.path, tmp_path / "home")))
    copy.config.write_text('name = "play"\naddress = "127.0.0.1:9999"\n')
    return copy


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `cloister-coordinator doctor`."""
    with pytest.raises(SystemExit) as left:
        outer_door(lambda: app(list(words)))
    told = capsys.readouterr()
    return int(left.value.code or 0), told.out, told.err


def test_a_sound_home(home: CoordinatorHome, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--home", str(home.path))
    assert code == 0, out
    assert "0 fail" in out


def test_the_worst_kind_is_the_exit_code(home: CoordinatorHome, capsys: pytest.CaptureFixture[str]) -> None:
    home.sites.chmod(0o755)
    assert run(capsys, "--home", str(home.path))[0] == 3
    home.config.write_text('name = "play"\naddress = "127.0.0.2:9999"\n')
    assert run(capsys, "--home", str(home.path))[0] == 4
    home.superlink_certificate.unlink()
    assert run(capsys, "--home", str(home.path))[0] == 13
    home.audit.unlink()
    code, out, err = run(capsys, "--home", str(home.path))
    assert code == 14
    assert "mend: chmod 700" in out
    assert "checks failed" in err


def test_json(home: CoordinatorHome, capsys: pytest.CaptureFixture[str]) -> None:
    home.audit.unlink()
    code, out, _ = run(capsys, "--home", str(home.path), "--json")
    assert code == 14
    assert [one["subject"] for one in json.loads(out) if one["exit_code"]] == ["audit log"]


def test_no_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--home", str(tmp_path / "none"))
    assert (code, out) == (3, "")
    assert "there is no coordinator at" in err
