import os
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.private_files import open_to_others, read_private_file


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "a key"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_what_only_its_owner_may_read_is_read(secret, mode):
    secret.chmod(mode)
    assert read_private_file(secret, 100) == b"secret"
    assert open_to_others(secret) is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601, 0o610, 0o602, 0o777])
def test_what_others_may_reach_is_refused_with_the_command_that_mends_it(secret, mode):
    secret.chmod(mode)
    with pytest.raises(ConfigError, match=f"has mode {mode:04o}") as caught:
        read_private_file(secret, 100)
    assert caught.value.exit_code == 3
    assert caught.value.hint == f"chmod 600 '{secret}'"
    assert "secret" not in caught.value.message
    assert open_to_others(secret) == mode


def test_a_link_is_judged_by_the_file_behind_it(secret, tmp_path):
    (tmp_path / "link").symlink_to(secret)
    assert read_private_file(tmp_path / "link", 100) == b"secret"
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0644"):
        read_private_file(tmp_path / "link", 100)


def test_what_is_no_plain_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(ConfigError, match="is not a plain file"):
            read_private_file(tmp_path / name, 100)
    with pytest.raises(ConfigError, match="is not a plain file"):
        read_private_file(Path(os.devnull), 100)


def test_a_missing_and_a_large_file_are_one_sentence(secret, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file") as caught:
        read_private_file(tmp_path / "none", 100)
    assert "backup" in caught.value.hint
    with pytest.raises(ConfigError, match="has 6 bytes and may have 5"):
        read_private_file(secret, 5)
    assert read_private_file(secret, 6) == b"secret"
