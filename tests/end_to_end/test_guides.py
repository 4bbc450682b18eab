"""A study from nothing to an adapter, by exactly the commands that the guides show: real processes, TLS, loopback."""

import json
import re
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from tests.guide_play import DOCS, HOSPITALS, ORDER, Command, Play, differences, free_ports, read_guide, steps_until
from tests.socket_watch import LISTENING, Watch

# The model card's own lines load the adapter, in a process to which nothing of Cloister or Flower can come.
PLAIN = """
import sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {"common", "client", "server", "simulations", "cloister", "flwr", "opacus"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory, tiny_base):
    """The whole study, with SuperLink, gateway and three nodes as processes of their own; and the nodes' sockets."""
    with Play(tmp_path_factory.mktemp("study"), free_ports(), tiny_base) as play:
        with Watch(play.nodes) as watch:
            play.play(steps_until())
        yield play, watch


@pytest.fixture(scope="module")
def played(watched):
    return watched[0]


@pytest.fixture(scope="module")
def results(played):
    return json.loads((played.folder / "result" / "results.json").read_bytes())


def test_every_command_shows_what_the_guides_show_and_all_rounds_run(played, results):
    rounds = results["totals"]["rounds_planned"]
    assert results["totals"]["rounds"] == rounds >= 8
    for name in HOSPITALS:
        spent = json.loads(played.call(name, "cloister-site budget --json"))[0]["spent_on"]
        assert [(one["last_round"], one["rounds"]) for one in spent] == [(rounds, rounds)]


def test_services_have_ended_in_order_and_left_no_process(played):
    assert {name: process.poll() for name, process in played.services.items()} == dict.fromkeys(
        ("coordinator", *HOSPITALS), 0
    )


def test_a_node_talks_to_the_coordinators_port_and_listens_nowhere(watched):
    play, watch = watched
    assert watch.looks > 20
    assert {(one.table, one.remote_host, one.remote_port) for one in watch.seen} == {
        ("tcp", "127.0.0.1", play.ports[0])
    }
    assert not any(one.state == LISTENING for one in watch.seen)


def test_plain_peft_loads_the_exported_adapter(played, tiny_base):
    result = played.folder / "result"
    card = (result / "model-card.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1).replace("path/to/the/base", str(tiny_base))
    show = 'print(probabilities(["the patient had a rash after taking the drug", "no fever"]).tolist())'
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{PLAIN}\n{code}\n{show}"],
        cwd=result,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [sum(row) for row in rows] == pytest.approx([1.0, 1.0])
    assert any(value.any() for name, value in load_file(result / "adapter" / "adapter_model.safetensors").items())


def test_no_word_of_a_note_is_in_any_file_but_the_notes(played):
    """Logs, books, reports and the coordinator's home: none quotes a record."""
    lines = (played.folder / "notes" / "north.csv").read_text(encoding="utf-8").splitlines()[1:]
    notes = {line.split(",", 1)[1].rsplit(",", 1)[0].strip('"').encode()[:40] for line in lines[:50]}
    for path in played.folder.rglob("*"):
        if path.is_file() and path.parent.name != "notes":
            content = path.read_bytes()
            assert not [note for note in notes if note in content], path


# --- the guides and the player -------------------------------------------------------------------------------------


def test_every_command_of_the_guides_has_its_turn():
    guides = {
        (party, title) for party in ("coordinator", "hospital") for title in read_guide(DOCS / f"{party}-guide.md")
    }
    assert guides == set(ORDER)


def test_the_guides_show_what_their_commands_show():
    """So many commands with so much output that a guide without any would be noticed."""
    commands = [step for step in steps_until() if isinstance(step, Command)]
    assert len(commands) >= 30
    assert sum(bool(command.shown) for command in commands) >= 0.8 * len(commands)


def test_a_line_that_does_not_come_is_noticed_and_values_are_learned():
    values = {}
    shown = ["site     north", "fingerprint  AAAA-BBBB-CCCC-DDDD-EEEE-FFFF", "…", "cost  ε = 8.00"]
    actual = "site north\nfingerprint  GGGG-BBBB-CCCC-DDDD-EEEE-FFFF\nmore\ncost  ε = 7.90\n"
    assert differences(shown, actual, values) == []
    assert values == {"AAAA-BBBB-CCCC-DDDD-EEEE-FFFF": "GGGG-BBBB-CCCC-DDDD-EEEE-FFFF"}
    assert differences(["cost  ε = 8.00", "site  south"], actual, {}) == ["site  south"]
    assert differences(["error: no"], actual, {}) == ["error: no"]
