"""docs/protocol.md shows the function that is tested, and numbers that the code gives."""

import ast
import re
from pathlib import Path

import pytest

from common.secagg.messages import SECAGG_RULES
from common.secagg.parameters import Parameters
from common.wire import encode
from tests.secagg_play import make_study, random_inputs, start_round

BLOCK = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
ROW = re.compile(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)
SIZE = re.compile(r"^\| `(\w+)` \| [^|]+ \| ([\d,]+) \|$", re.MULTILINE)
STEP = re.compile(r"^\| (\d+) \| `(\w+)` \| (\w+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "protocol.md").read_text(encoding="utf-8")


def test_the_page_shows_the_very_function(page: str, root: Path) -> None:
    source = (root / "tests" / "common" / "secagg" / "test_protocol.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    shown = [ast.get_source_segment(source, node) for node in functions if node.name == "play_a_round"]
    assert BLOCK.findall(page) == shown


def test_the_steps_are_the_messages_in_their_order(page: str) -> None:
    steps = STEP.findall(page)
    assert [int(step) for step, _, _ in steps] == list(range(1, 11))
    assert [message for _, message, _ in steps] == [kind.__name__ for kind in SECAGG_RULES]
    assert [sender for _, _, sender in steps] == ["coordinator", "site"] * 5


def test_the_neighbours_of_the_table_are_those_of_the_code(page: str) -> None:
    rows = [tuple(map(int, row)) for row in ROW.findall(page)]
    assert len(rows) >= 5
    for sites, dropouts, colluders, degree, threshold in rows:
        found = Parameters(sites, dropouts, colluders, sites - dropouts)
        assert (found.neighbourhood.degree, found.neighbourhood.share_threshold) == (degree, threshold)
        assert found.problems() == []


def test_the_sizes_of_the_table_are_those_of_the_frames(page: str, tmp_path: Path) -> None:
    study = make_study(tmp_path, sites=10, dropouts=1, colluders=1, rounds=32)
    roster = study.roster(rounds=32)
    game = start_round(study, study.session(roster))
    game.mask(random_inputs(study.names, 3, seed=1))
    game.agree(study.names)
    name = study.names[0]
    frames = {
        "SessionKeys": roster.parts()[name],
        "SessionRoster": roster,
        "SessionShares": study.sites[name].shares(roster),
        "SurvivorSet": game.coordinator.survivor_set(),
        "Consent": game.consent_of(name),
        "RevealRequest": game.coordinator.reveal_request(name),
        "Reveal": game.reveal_of(name),
    }
    shown = {kind: int(size.replace(",", "")) for kind, size in SIZE.findall(page)}
    assert {kind: shown[kind] for kind in frames} == {kind: len(encode(message)) for kind, message in frames.items()}
