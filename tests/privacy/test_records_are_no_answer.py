"""What leaves a hospital says the same whatever a record says: a refusal would be a test of who is in the data.

A plan without some label was once answered `not-ready` exactly where one record had that label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from client.opening import open_site
from client.status import StatusBoard
from common.messages import Message, RoundOrder, RoundReply
from common.study_messages import BaseNeed
from tests.federation_play import DRAFT, make_federation
from tests.site_play import SitePlay, code, hand_out
from tests.sources import SeededSource

PLAN = {
    **DRAFT,
    "rounds": 1,
    "adapter": {"method": "head"},
    "mode": "per-site",
    "secure_aggregation": {"masked": False},
}
VALUES = 2 * 16 + 2

Said = tuple[Message, ...]
Answers = Callable[[bytes], Said]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Answers]:
    """What site `a` says to a plan, to its base and to its first round, with these bytes in its file of records.

    Draws and noise are the same each time, so that what differs comes from the records.
    """
    folder = tmp_path_factory.mktemp("no answer")
    federation = make_federation(folder, tiny_base, ("a", "b", "c"))
    play = SitePlay(federation)
    text = play.home.config.read_text()
    play.home.config.write_text(text.replace("[policy]", "[policy]\nmasked_only = false"))
    numbers = iter(range(99))

    def answer(records: bytes) -> Said:
        (folder / "a" / "data" / "rows.csv").write_bytes(records)
        opening = open_site(play.home, StatusBoard(play.home.status), lambda: SeededSource(7))
        play.opened = play.stack.enter_context(opening)
        signed = federation.sign({**PLAN, "name": f"plan{next(numbers)}"})
        need = play.offer(signed) and hand_out(play, signed)
        order = RoundOrder(signed.digest, 1, np.zeros(VALUES, np.float32), np.zeros(0, np.float32))
        reply = play.ask(order)
        play.close()
        return need, reply

    yield answer
    play.close()


@pytest.fixture(scope="module")
def records(answers: Answers) -> bytes:
    """The records of a hospital that fit the plan."""
    rows = [
        f"p{row // 2},the patient had {('pain', 'a rash')[row % 2]} {row},{('none', 'event')[row % 2]}\n"
        for row in range(24)
    ]
    return ("patient_id,text,label\n" + "".join(rows)).encode()


ONE_MORE = {
    "a label that the plan leaves out": b"p99,the patient had fever,hiv\n",
    "no label": b"p99,the patient had fever,\n",
    "an empty text": b"p99,,none\n",
    "nobody's row": b",the patient had fever,none\n",
    "another encoding": b"p99,fi\xe8vre,none\n",
    "a column too few": b"p99,none\n",
    "a quote that is not closed": b'p99,"the patient had fever,none\n',
}


@pytest.mark.parametrize("row", ONE_MORE.values(), ids=ONE_MORE)
def test_one_record_more_that_does_not_fit_changes_no_bit(answers: Answers, records: bytes, row: bytes) -> None:
    need, reply = answers(records + row)
    expected_need, expected = answers(records)
    assert isinstance(need, BaseNeed)
    assert isinstance(expected_need, BaseNeed)
    assert isinstance(reply, RoundReply)
    assert isinstance(expected, RoundReply)
    assert need.state == expected_need.state == "complete"
    assert np.array_equal(reply.update, expected.update)


def test_one_record_more_that_fits_is_seen_by_this_test(answers: Answers, records: bytes) -> None:
    """Otherwise it could not fail."""
    one, other = (answers(content)[1] for content in (records, records + b"p99,the patient had fever,none\n"))
    assert isinstance(one, RoundReply)
    assert isinstance(other, RoundReply)
    assert not np.array_equal(one.update, other.update)


NO_RECORD = {
    "a header alone": b"patient_id,text,label\n",
    "no byte": b"",
    "one row that does not fit": b"patient_id,text,label\np1,the patient had fever,hiv\n",
    "one row that cannot be parsed": b'patient_id,text,label\np1,"x"y,none\n',
}


@pytest.mark.parametrize("content", NO_RECORD.values(), ids=NO_RECORD)
def test_without_a_record_that_fits_noise_leaves_as_ever(answers: Answers, records: bytes, content: bytes) -> None:
    need, reply = answers(content)
    assert isinstance(need, BaseNeed)
    assert need.state == "complete"
    assert isinstance(reply, RoundReply)
    assert len(reply.update) == VALUES
    assert np.isfinite(reply.update).all()
    assert reply.update.any()


def test_a_file_without_the_column_is_a_matter_of_the_set_up(answers: Answers, records: bytes) -> None:
    for rows in (records, b"patient_id,text,label\n"):
        need, reply = answers(rows.replace(b"label", b"class"))
        assert code(need) == code(reply) == "not-ready"
