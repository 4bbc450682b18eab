from pathlib import Path

import pytest

from tests.site_commands import Play


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


@pytest.fixture
def joined(play: Play) -> Play:
    return play.join()
