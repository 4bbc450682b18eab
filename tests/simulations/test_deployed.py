"""What is not about running; tests/end_to_end/test_real_crashes.py runs it."""

import subprocess
import sys

import pytest

from client.approvals import read_approval
from client.config import load_site_config
from common.errors import DeadlineError
from server.config import load_coordinator_config
from simulations.deployed import deploy, free_ports, processes_with, wait_until
from tests.deployed_play import PLAN
from tests.tiny_scenario import write_rows


def test_free_ports_are_as_many_and_all_different():
    assert len(set(free_ports(5))) == 5


def test_a_process_is_found_by_its_command_line_until_it_ends():
    mark = "a mark on nobody else's command line"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", mark])
    wait_until(lambda: processes_with(mark) == [process.pid], "the process", 10.0)
    process.kill()
    process.wait()
    assert processes_with(mark) == []


def test_waiting_ends():
    with pytest.raises(DeadlineError, match=r"waited 0\.01 seconds for Godot"):
        wait_until(lambda: False, "Godot", 0.01)


def test_everything_is_there_up_to_an_approved_plan(tmp_path, tiny_base):
    rows = {name: tmp_path / "data" / name for name in ("a", "b", "c")}
    for name, folder in rows.items():
        write_rows(folder / "rows.csv", name, patients=4)
    deployment = deploy(tmp_path, tiny_base, rows, waiting={"late_seconds": 3.0}, policy="least_colluders = 1")
    signed = deployment.sign({**PLAN, "name": "made"})
    assert sorted(signed.plan.roster) == ["a", "b", "c"]
    assert load_coordinator_config(deployment.coordinator.config).waiting.late_seconds == 3.0
    for home in deployment.sites.values():
        assert read_approval(home, signed.digest) is not None
        assert load_site_config(home.config).base.local == (str(tiny_base),)
    assert not deployment.run_of(signed).folder.exists()
    assert deployment.remains() == []
