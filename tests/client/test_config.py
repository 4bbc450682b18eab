from pathlib import Path

import pytest

from client.config import load_site_config
from common.errors import ConfigError

LEAST = """
name = "st-anna"
[data]
train = ["visits.csv"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_site_config(written(tmp_path, text))
    return "\n".join(map(str, caught.value.problems))


def test_name_and_files_are_enough(tmp_path: Path) -> None:
    config = load_site_config(written(tmp_path, LEAST))
    assert config.train_files == (tmp_path / "visits.csv",)
    assert config.policy.approval_needed
    assert config.budget.of("patient") is not None
    assert config.budget.of("record") is None


def test_relative_paths_start_at_the_files_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_site_config(written(tmp_path, LEAST + 'folder = "data"\n[network]\nextra_ca_file = "ca.pem"\n'))
    assert config.train_files == (tmp_path / "data" / "visits.csv",)
    assert config.network.extra_ca_file == str(tmp_path / "ca.pem")


def test_local_bases_are_folders_or_packages(tmp_path: Path) -> None:
    config = load_site_config(written(tmp_path, LEAST + '[base]\nlocal = ["tiny", "package:name/model"]\n'))
    assert config.base.local == (str(tmp_path / "tiny"), "package:name/model")


def test_a_unit_that_plans_may_protect_needs_a_budget(tmp_path: Path) -> None:
    text = LEAST + '[policy]\nunits = ["record"]\n'
    assert "needs a table [budget.record]" in problems(tmp_path, text)
    both = load_site_config(written(tmp_path, text + "[budget.record]\nepsilon = 3\n"))
    assert both.budget.of("record").epsilon == 3


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = LEAST + 'folder = 3\n[policy]\nmost_epsilom = 1\nmost_delta = 2\n[network]\nproxy = "proxy"\n'
    found = problems(tmp_path, text)
    assert all(key in found for key in ("data.folder", "policy.most_epsilom", "policy.most_delta", "network.proxy"))


def test_polls_must_fit(tmp_path: Path) -> None:
    text = LEAST + "[network]\nleast_poll_seconds = 9\n"
    assert "`least_poll_seconds` must be at most" in problems(tmp_path, text)


@pytest.mark.parametrize("table", ["data = 3", 'data = {folder = ["x"]}', "network = []"])
def test_what_is_no_table_is_a_problem_and_no_traceback(tmp_path: Path, table: str) -> None:
    assert problems(tmp_path, f'name = "a"\n{table}\n')


def test_a_site_without_config_is_told_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_site_config(tmp_path / "site.toml")
    assert "cloister-site init" in caught.value.hint
