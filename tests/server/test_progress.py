import json

import pytest

from server.progress import PROGRESS_NAME, PhaseProgress, Progress, RoundProgress, SiteProgress, read_progress

EVENTS = [
    PhaseProgress("gathering"),
    SiteProgress("north", "refused", ("epsilon-too-high", "other-base"), 0.25),
    RoundProgress(
        2, 3, 1.5, 0.25, {"validation loss": 0.5}, {"not-ready": 1}, "nothing changed: too few sites", ("a",)
    ),
    PhaseProgress("failed", "a sentence with ε and\u2028a line", "a hint", 16),
]


def test_what_is_told_is_read_again_from_any_place(tmp_path):
    progress, places = Progress(tmp_path), [0]
    for event in EVENTS:
        progress.tell(event)
        places.append(read_progress(tmp_path)[1])
    for number, place in enumerate(places):
        assert read_progress(tmp_path, place) == (EVENTS[number:], places[-1])


def test_nothing_was_told_where_there_is_no_file(tmp_path):
    assert read_progress(tmp_path, 7) == ([], 7)


@pytest.mark.parametrize("torn", [b"{", b'{"event": "pha', b"\xff\xfe"])
def test_a_line_that_a_crash_has_torn_costs_itself_and_nothing_else(tmp_path, torn):
    Progress(tmp_path).tell(EVENTS[0])
    with (tmp_path / PROGRESS_NAME).open("ab") as stream:
        stream.write(torn)
    assert read_progress(tmp_path)[0] == EVENTS[:1]
    Progress(tmp_path).tell(EVENTS[3])
    assert read_progress(tmp_path)[0] == [EVENTS[0], EVENTS[3]]


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"1",
        b"{}",
        b'{"event": "other"}',
        b'{"event": []}',
        b'{"event": "site", "more": 1}',
        b'{"event": "site"}',
    ],
)
def test_a_line_of_another_kind_is_passed_over(tmp_path, line):
    (tmp_path / PROGRESS_NAME).write_bytes(line + b"\n")
    Progress(tmp_path).tell(EVENTS[1])
    assert read_progress(tmp_path)[0] == [EVENTS[1]]


def test_a_line_without_its_end_is_left_for_the_next_look(tmp_path):
    Progress(tmp_path).tell(EVENTS[1])
    whole = (tmp_path / PROGRESS_NAME).read_bytes()
    (tmp_path / PROGRESS_NAME).write_bytes(whole[:-1])
    assert read_progress(tmp_path) == ([], 0)
    assert json.loads(whole)["event"] == "site"
