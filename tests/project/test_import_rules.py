"""Every import contract bites: one planted violation each, in a copy of the packages."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("common", "client", "server", "simulations")
VIOLATIONS = [
    ("layers", "client/node.py", "import server.round"),
    ("layers", "server/round.py", "import client.node"),
    ("layers", "common/wire.py", "import client.node"),
    ("layers", "client/node.py", "import simulations.scenario"),
    ("records", "client/outbox.py", "import common.records.records"),
    ("mechanism", "common/privacy/plan.py", "import torch"),
    ("mechanism", "server/aggregation/base.py", "import torch"),
    ("mechanism", "common/wire.py", "import common.base_model"),  # by a detour
    ("secagg", "common/secagg/prg.py", "import torch"),
    ("secagg", "client/secagg.py", "import torch"),
    ("quiet", "client/node.py", "import socket"),
    ("quiet", "server/run.py", "import http.client"),
    ("cycles", "common/errors.py", "import common.config"),
]


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", folder)
    return folder


def broken(folder: Path, contract: str) -> bool:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo", "--contract", contract]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "Contracts: " in done.stdout, done.stdout + done.stderr  # it ran, and did not fail for another reason
    return done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize(("contract", "module", "line"), VIOLATIONS, ids=lambda value: value.replace("/", "."))
def test_a_planted_import_is_found(copy: Path, contract: str, module: str, line: str) -> None:
    target = copy / module
    before = target.read_text(encoding="utf-8")
    assert not broken(copy, contract)
    target.write_text(f"{before}\n{line}\n", encoding="utf-8")
    try:
        assert broken(copy, contract)
    finally:
        target.write_text(before, encoding="utf-8")
