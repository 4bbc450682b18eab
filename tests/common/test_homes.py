import pytest

from common.errors import ConfigError
from common.homes import make_home, permission_findings

FOLDERS = ("keys", "plans")


def modes(folder):
    return {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}


def fill(draft):
    (draft / "keys" / "a.key").touch(mode=0o600)
    (draft / "keys" / "ca.pem").touch(mode=0o644)


def test_a_home_appears_whole_and_closed(tmp_path):
    home = tmp_path / "deep" / "down" / "home"
    make_home(home, FOLDERS, fill)
    assert modes(home) == {"home": 0o700, "keys": 0o700, "plans": 0o700, "a.key": 0o600, "ca.pem": 0o644}
    assert [path.name for path in home.parent.iterdir()] == ["home"]


def test_an_empty_folder_becomes_one(tmp_path):
    (tmp_path / "home").mkdir(mode=0o755)
    make_home(tmp_path / "home", FOLDERS, fill)
    assert modes(tmp_path / "home")["home"] == 0o700


def test_it_is_not_there_before_it_is_whole(tmp_path):
    home, seen = tmp_path / "home", []
    make_home(home, FOLDERS, lambda draft: seen.append((home.exists(), (draft / "keys").is_dir())))
    assert seen == [(False, True)]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ConfigError("no"), KeyboardInterrupt()])
def test_what_fails_half_way_leaves_nothing(tmp_path, error):
    def fail(draft):
        fill(draft)
        raise error

    with pytest.raises((ConfigError, KeyboardInterrupt)) as caught:
        make_home(tmp_path / "home", FOLDERS, fail)
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert caught.value.message == f"the home {tmp_path / 'home'} cannot be made: No space left on device"


@pytest.mark.parametrize("name", ["site.toml", ".hidden", "keys"])
def test_a_folder_with_anything_in_it_is_never_touched(tmp_path, name):
    home = tmp_path / "home"
    home.mkdir()
    (home / name).write_text("precious")
    with pytest.raises(ConfigError, match="is not empty") as caught:
        make_home(home, FOLDERS, fill)
    assert "--home" in caught.value.hint
    assert [(path.name, path.read_text()) for path in home.iterdir()] == [(name, "precious")]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_who_was_faster_keeps_his_home(tmp_path):
    home = tmp_path / "home"

    def slow(draft):
        fill(draft)
        make_home(home, FOLDERS, lambda other: (other / "first").touch())

    with pytest.raises(ConfigError, match="cannot be made: Directory not empty"):
        make_home(home, FOLDERS, slow)
    assert (home / "first").exists()
    assert not (home / "keys" / "a.key").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_what_is_no_folder_is_no_home(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match="is not a folder"):
            make_home(tmp_path / name, FOLDERS, fill)
    with pytest.raises(ConfigError, match="cannot be made"):
        make_home(tmp_path / "file" / "home", FOLDERS, fill)


def test_a_closed_home_passes(tmp_path):
    make_home(tmp_path / "home", FOLDERS, fill)
    (finding,) = permission_findings(tmp_path / "home", FOLDERS)
    assert finding.level == "pass"


@pytest.mark.parametrize(
    ("where", "mode", "mend"),
    [
        ("", 0o755, "chmod 700 {}"),
        ("keys", 0o750, "chmod 700 {}/keys"),
        ("plans", 0o701, "chmod 700 {}/plans"),
        ("keys/a.key", 0o644, "chmod 600 {}/keys/a.key"),
        ("keys/a.key", 0o620, "chmod 600 {}/keys/a.key"),
    ],
)
def test_what_others_may_reach_is_found_with_its_mend(tmp_path, where, mode, mend):
    home = tmp_path / "home"
    make_home(home, FOLDERS, fill)
    (home / where).chmod(mode)
    (finding,) = permission_findings(home, FOLDERS)
    assert (finding.level, finding.mend) == ("fail", mend.format(home))
    assert f"{mode:04o}" in finding.sentence


def test_every_fault_is_found_and_a_missing_folder_is_one(tmp_path):
    home = tmp_path / "home"
    make_home(home, FOLDERS, fill)
    (home / "plans").rmdir()
    (home / "keys" / "a.key").chmod(0o604)
    home.chmod(0o711)
    assert [finding.level for finding in permission_findings(home, FOLDERS)] == ["fail"] * 3
    assert permission_findings(tmp_path / "none", FOLDERS)[0].mend == "make a home by `init`"
