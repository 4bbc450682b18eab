import json
import shutil
from pathlib import Path

import pytest
import typer

from client.commands.doctor import doctor
from client.home import SiteHome
from common.command_line import outer_door
from tests.federation_play import make_federation

app = typer.Typer()
app.command()(doctor)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    folder = tmp_path_factory.mktemp("federation")
    return make_federation(folder, folder, ("a",)).sites["a"]


@pytest.fixture
def home(original: SiteHome, tmp_path: Path) -> SiteHome:
    return SiteHome(Path(shutil.copytree(original.path, tmp_path / "home")))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `cloister-site doctor`."""
    with pytest.raises(SystemExit) as left:
        outer_door(lambda: app(list(words)))
    told = capsys.readouterr()
    return int(left.value.code or 0), told.out, told.err


def test_a_sound_site(home: SiteHome, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--home", str(home.path), "--offline")
    assert code == 0
    assert "0 fail" in out
    assert "error" not in err


def test_the_worst_kind_is_the_exit_code(home: SiteHome, capsys: pytest.CaptureFixture[str]) -> None:
    home.plans.chmod(0o755)
    assert run(capsys, "--home", str(home.path), "--offline")[0] == 3
    home.ledger.unlink()
    assert run(capsys, "--home", str(home.path), "--offline")[0] == 13
    home.audit.unlink()
    code, out, err = run(capsys, "--home", str(home.path), "--offline")
    assert code == 14
    assert "3 fail" in out
    assert "mend: chmod 700" in out
    assert "3 checks failed" in err


def test_nobody_at_the_coordinators_port(home: SiteHome, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--home", str(home.path))[0] == 4


def test_json(home: SiteHome, capsys: pytest.CaptureFixture[str]) -> None:
    home.audit.unlink()
    code, out, _ = run(capsys, "--home", str(home.path), "--offline", "--json")
    told = json.loads(out)
    assert code == 14
    assert [one["subject"] for one in told if one["exit_code"]] == ["audit log"]
    assert told[0].keys() == {"level", "subject", "sentence", "mend", "exit_code", "seconds"}


def test_no_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--home", str(tmp_path / "none"))
    assert (code, out) == (3, "")
    assert "there is no site at" in err
