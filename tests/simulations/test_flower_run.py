"""Hospitals on Flower's simulation engine: its two apps with a fake grid, and a whole run on a real Ray."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("flwr")
pytest.importorskip("ray")

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.errors import CloisterError, ConfigError, IntegrityError
from server.report import is_finished
from simulations import flower_run
from simulations.flower_run import FlowerEngine, _CoordinatorPart, _FlowerCarrier, answer_message
from simulations.network import Delivery
from simulations.ray_cluster import RayWish
from simulations.rebuilt_sites import Answer
from simulations.run import start_run
from simulations.view import SilentView
from tests.tiny_scenario import tiny_scenario, write_tiny_scenario

COMMAND = Path(sys.executable).with_name("cloister-simulate")
# Sums of three hospitals under masks, without noise and with every patient in every round: nothing is left to chance.
SURE = (
    "plan.mode=distributed",
    "plan.local_steps=1",
    "plan.secure_aggregation.masked=true",
    "plan.secure_aggregation.tolerated_dropouts=0",
    "plan.privacy.noise_multiplier=0.0",
    "plan.privacy.sampling_rate=1.0",
    "hospitals.count=3",
)
WEIGHTS = ("adapter_model.safetensors", "head.safetensors")


# --- without Ray -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower makes messages within a task only."""
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class FakeGrid:
    """A grid that lets a test say when a message is answered, and with what."""

    def __init__(self, *nodes: int) -> None:
        self.nodes, self.sent, self.ready = nodes, {}, []

    def get_node_ids(self) -> tuple[int, ...]:
        return self.nodes

    def push_messages(self, messages: list[Message]) -> list[str]:
        (message,) = messages
        name = f"message {len(self.sent)}"
        message.metadata.__dict__["_message_id"] = name
        self.sent[name] = message
        self.ready.append(self.reply_to(message))
        return [name]

    def reply_to(self, message: Message) -> Message:
        asked = message.content["cloister"]
        content = ConfigRecord({"frame": b"answer to " + asked["frame"], "seconds": 0.5})
        return Message(RecordDict({"cloister": content}), reply_to=message)

    def pull_messages(self, names: list[str]) -> list[Message]:
        found, self.ready = self.ready[-1:], self.ready[:-1]  # the last first: no order is promised
        assert all(message.metadata.reply_to_message_id in names for message in found)
        return found


def carrier(grid: FakeGrid, stopped: threading.Event | None = None, folder: Path = Path("run")) -> _FlowerCarrier:
    setting: Any = SimpleNamespace(folder=folder, sites=("north", "south"))
    return _FlowerCarrier(grid, setting, SilentView(), stopped or threading.Event())


def test_every_delivery_is_brought_once_and_a_site_gets_its_own_in_order() -> None:
    grid = FakeGrid(7, 3)
    made = carrier(grid)
    deliveries = [Delivery("north", b"n", copy, b"n%d" % copy) for copy in range(2)] + [
        Delivery("south", b"s", 0, b"s")
    ]
    brought = list(made.carry(deliveries))
    assert sorted((d.site, d.copy, frame) for d, frame in brought) == [
        ("north", 0, b"answer to n0"),
        ("north", 1, b"answer to n1"),
        ("south", 0, b"answer to s"),
    ]
    assert [message.content["cloister"]["frame"] for message in grid.sent.values()] == [b"n0", b"s", b"n1"]
    assert made.seconds == 1.5


def test_a_second_copy_waits_until_the_first_was_answered() -> None:
    grid = FakeGrid(7, 3)
    answers = carrier(grid).carry([Delivery("north", b"n", copy, b"n") for copy in range(2)])
    next(answers)
    assert len(grid.sent) == 1
    next(answers)
    assert len(grid.sent) == 2


def failing(reply: Any) -> type[FakeGrid]:
    return type("Failing", (FakeGrid,), {"reply_to": lambda self, message: reply(message)})


def test_what_a_site_raises_comes_out_here_in_the_same_words() -> None:
    content = {"error": "IntegrityError", "message": "the book is missing", "hint": "start anew"}
    grid = failing(lambda message: Message(RecordDict({"cloister": ConfigRecord(content)}), reply_to=message))(7, 3)
    with pytest.raises(IntegrityError, match="the book is missing") as caught:
        list(carrier(grid).carry([Delivery("north", b"n", 0, b"n")]))
    assert caught.value.hint == "start anew"


def test_a_worker_that_failed_is_told_without_its_words() -> None:
    grid = failing(lambda message: Message(Error(code=0, reason="Zebulon"), reply_to=message))(7, 3)
    with pytest.raises(CloisterError, match="the worker process that served north failed") as caught:
        list(carrier(grid).carry([Delivery("north", b"n", 0, b"n")]))
    assert "Zebulon" not in f"{caught.value}{caught.value.hint}"


def test_a_stopped_engine_ends_the_coordinators_wait() -> None:
    grid, stopped = failing(lambda message: message)(7, 3), threading.Event()
    grid.pull_messages = lambda names: []
    threading.Timer(0.1, stopped.set).start()
    with pytest.raises(CloisterError, match="was stopped"):
        list(carrier(grid, stopped).carry([Delivery("north", b"n", 0, b"n")]))


def part(coordinate: Any) -> _CoordinatorPart:
    setting: Any = SimpleNamespace(folder=Path("run"), sites=("north",))
    return _CoordinatorPart(setting, SilentView(), coordinate)


def test_the_coordinators_result_and_its_errors_come_back_to_the_caller() -> None:
    well, badly = part(lambda carrier: "result"), part(lambda carrier: 1 // 0)
    for made in (well, badly):
        made._main(FakeGrid(1), None)
        made.stop()
    assert well.result() == "result"
    with pytest.raises(ZeroDivisionError):
        badly.result()


def test_a_stop_waits_for_a_coordinator_that_still_writes() -> None:
    written = []

    def coordinate(carrier: object) -> None:
        time.sleep(0.2)
        written.append("checkpoint")

    made = part(coordinate)
    thread = threading.Thread(target=made._main, args=(FakeGrid(1), None))
    thread.start()
    time.sleep(0.05)
    made.stop()
    assert written == ["checkpoint"]
    thread.join()


def test_a_coordinator_that_was_stopped_before_it_began_never_begins() -> None:
    made = part(lambda carrier: pytest.fail("began"))
    made.stop()
    made._main(FakeGrid(1), None)
    with pytest.raises(CloisterError, match="never called the coordinator"):
        made.result()


def test_a_worker_answers_for_the_site_that_the_message_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(site: str, frame: bytes) -> Answer:
        if site == "south":
            raise IntegrityError("the book is missing", hint="start anew")
        return Answer(site.encode() + frame, 0.25)

    monkeypatch.setattr(flower_run, "_sites_of", lambda folder: SimpleNamespace(answer=answer))

    def asked(site: str) -> dict[str, Any]:
        content = ConfigRecord({"folder": "run", "site": site, "frame": b"!"})
        return dict(answer_message(Message(RecordDict({"cloister": content}), 1, "query"), None).content["cloister"])

    assert asked("north") == {"frame": b"north!", "seconds": 0.25}
    assert asked("south") == {"error": "IntegrityError", "message": "the book is missing", "hint": "start anew"}


@pytest.mark.parametrize("absent", ["flwr", "ray"])
def test_without_flower_or_ray_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    monkeypatch.setattr(flower_run, "INSTALLED", absent != "flwr")
    if absent == "ray":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs Flower and Ray") as caught:
        FlowerEngine(RayWish())
    assert 'pip install "cloister[ray]"' in caught.value.hint


def test_flower_tells_nobody_about_a_run() -> None:
    """In a process of its own: telemetry is decided when Flower is first imported, whoever does it."""
    script = (
        "import os, simulations.flower_run; from flwr.supercore import telemetry;"
        "print(telemetry.FLWR_TELEMETRY_ENABLED, os.environ['FLWR_DISABLE_UPDATE_CHECK'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert done.stdout == "0 1\n"


# --- on a real Ray ---------------------------------------------------------------------------------------------------


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """The command in a session of its own, as Ctrl-C meets all processes of a terminal's foreground."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests themselves ignore it
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CLOISTER_"))}
    return subprocess.Popen(
        [COMMAND, "run", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TMPDIR": "/tmp"},  # noqa: S108 - short sockets
        start_new_session=True,
    )


def on_flower(scenario: Path, *more: str) -> list[str]:
    overrides = [word for override in (*SURE, *more) for word in ("--set", override)]
    return [str(scenario), "--engine", "flower", "--workers", "2", *overrides]


def ours(session: int) -> list[str]:
    """Commands of all processes of a session that still run."""
    listed = subprocess.run(["ps", "-eo", "sid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 2) for line in listed.splitlines())
    return [row[2] for row in rows if row[0] == str(session) and not row[1].startswith("Z")]


def weights(run: Path) -> Iterator[bytes]:
    return ((run / "adapter" / name).read_bytes() for name in WEIGHTS)


def test_a_run_on_flower_ends_with_the_model_of_a_run_in_this_process(tmp_path: Path, tiny_base: Path) -> None:
    here = start_run(tiny_scenario(tmp_path / "here", tiny_base, *SURE), Console(file=io.StringIO()))
    process = start(tmp_path, *on_flower(write_tiny_scenario(tmp_path / "there", tiny_base)))
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    (there,) = (tmp_path / "there" / "runs").iterdir()
    assert is_finished(there)
    assert list(weights(there)) == list(weights(here.folder))
    # Nothing of Flower's or Ray's on the terminal, and none of their processes left.
    assert [line.split()[0] for line in err.splitlines()] == [
        "reading",
        "warning:",
        "checking",
        "computing",
        "starting",
        "round",
        "round",
    ]
    assert out.startswith("reached: ")
    assert ours(process.pid) == []


@pytest.mark.slow  # two Rays and an interrupt
def test_ctrl_c_leaves_no_process_and_the_run_resumes_on_flower(tmp_path: Path, tiny_base: Path) -> None:
    changes = ("plan.rounds=30",)
    here = start_run(tiny_scenario(tmp_path / "here", tiny_base, *SURE, *changes), Console(file=io.StringIO()))
    process = start(tmp_path, *on_flower(write_tiny_scenario(tmp_path / "there", tiny_base), *changes))
    assert process.stderr is not None
    assert any(line.startswith("round 2/") for line in process.stderr)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    (folder,) = (tmp_path / "there" / "runs").iterdir()
    assert err.endswith(f"hint: go on with: cloister-simulate run --resume {folder}\n")
    assert ours(process.pid) == []
    assert not is_finished(folder)
    again = start(tmp_path, "--resume", folder, "--engine", "flower", "--workers", "2")
    _, err = again.communicate(timeout=400)
    assert again.returncode == 0, err
    assert list(weights(folder)) == list(weights(here.folder))
