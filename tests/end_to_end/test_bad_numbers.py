"""Numbers that may not leave a site: it skips the round, says so and stays charged; the model stays as it was."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from common.errors import CloisterError, IntegrityError
from common.messages import Refusal
from common.secagg.messages import MaskedReply
from common.wire import decode, encode
from server.checkpoint import load_checkpoint
from server.run import RunOutcome, run
from tests.masked_sites import Direct, Hospitals, make_hospitals

BAD = {
    "NaN": np.array([1.0, np.nan, 2.0]),
    "infinity": np.array([1.0, np.inf, 2.0]),
    "real values": np.array([1.0, 2.0, 3.0]),
    "float32": np.float32([1, 2, 3]),
    "wrong length": np.int64([1, 2]),
    "too long": np.int64([1, 2, 3, 4]),
    "wrong shape": np.int64([[1, 2, 3]]),
    "a column": np.int64([[1], [2], [3]]),
    "no dimension": np.int64(1),
    "beyond 32 bits": np.int64([1, 2**31, 0]),
    "below 32 bits": np.int64([1, -(2**31) - 1, 0]),
    "nothing": None,
    "an error of ours": CloisterError("no"),
}


class BadTrainer:
    """Gives what it is told in one round, and like another trainer in all others."""

    def __init__(self, result, number, other):
        self.result, self.number, self.other, self.calls = result, number, other, 0

    def train(self, order):
        if order.round_number != self.number:
            return self.other.train(order)
        self.calls += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def spoil(hospitals: Hospitals, name: str, result: object, number: int) -> None:
    hospitals.trainers[name] = BadTrainer(result, number, hospitals.trainers[name])


class Run:
    """A run with every model after every round, and every refusal."""

    def __init__(self, hospitals: Hospitals, alter=lambda site, answer: answer) -> None:
        self.hospitals, self.alter = hospitals, alter
        self.refusals: list[tuple[str, str]] = []
        self.models: list[bytes] = []
        doors = {name: self.door(name) for name in hospitals.names}
        self.outcome: RunOutcome = run(hospitals.setup(Direct(doors), observer=self.keep), hospitals.folder)

    def door(self, name: str):
        node = self.hospitals.open(name)

        def answer(request: bytes) -> bytes:
            frame = node.answer(request)
            self.refusals += [(name, code) for code in refusals_in(frame)]
            return self.alter(name, frame)

        return answer

    def keep(self, _summary) -> None:
        saved = load_checkpoint(self.hospitals.folder, self.hospitals.plan.digest)
        self.models.append(saved.model.weights.tobytes())


def refusals_in(frame: bytes) -> Iterator[str]:
    try:
        yield decode(frame, Refusal).code
    except IntegrityError:
        return


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_site_without_fit_numbers_skips_the_round_says_so_and_stays_charged(tmp_path, bad):
    hospitals = make_hospitals(tmp_path, rounds=2)
    spoil(hospitals, "s1", bad, 2)
    with capture_logs() as logs:
        seen = Run(hospitals)
    assert seen.refusals == [("s1", "no-update")]
    assert [(log["site"], log["round"], log["code"]) for log in logs] == [("s1", 2, "no-update")]
    assert [summary.survivors for summary in seen.outcome.rounds] == [4, 3]
    assert seen.outcome.rounds[1].refusals == {"no-update": 1}
    assert {hospitals.book(name).rounds_charged for name in hospitals.names} == {2}
    # The refusal is the round's one answer: the same order again is not trained again.
    assert hospitals.trainers["s1"].calls == 1


@pytest.mark.parametrize("bad", [BAD["NaN"], BAD["wrong length"]], ids=["NaN", "wrong length"])
def test_with_one_site_too_many_the_model_stays_bit_for_bit_and_the_next_round_goes_on(tmp_path, bad):
    hospitals = make_hospitals(tmp_path, rounds=3)
    spoil(hospitals, "s1", bad, 2)
    spoil(hospitals, "s3", bad, 2)
    seen = Run(hospitals)
    assert [summary.abort for summary in seen.outcome.rounds] == ["", "too few inputs", ""]
    assert [summary.applied for summary in seen.outcome.rounds] == [True, False, True]
    first, second, third = seen.models
    assert first == second != third
    assert {hospitals.book(name).rounds_charged for name in hospitals.names} == {3}


def masked_as(**changes):
    """What a broken site might send in place of its masked numbers."""

    def altered(site: str, answer: bytes) -> bytes:
        try:
            reply = decode(answer, MaskedReply)
        except IntegrityError:
            return answer
        return encode(replace(reply, **changes)) if site in {"s1", "s3"} and reply.round_number == 2 else answer

    return altered


FOREIGN = {
    "wrong length": ({"masked": np.uint32([1, 2])}, "wrong-shape"),
    "too long": ({"masked": np.zeros(4, np.uint32)}, "wrong-shape"),
    "no numbers": ({"masked": np.zeros(0, np.uint32)}, "wrong-shape"),
    "stale round": ({"round_number": 1}, "other-round"),
    "a round to come": ({"round_number": 3}, "other-round"),
    "another session": ({"session": "00" * 32}, "other-round"),
    "another plan": ({"plan_digest": "00" * 32}, "other-plan"),
    "another site's name": ({"site": "s0"}, "wrong-site"),
}


@pytest.mark.parametrize(("changes", "fault"), FOREIGN.values(), ids=FOREIGN)
def test_foreign_numbers_are_never_added_and_without_enough_others_the_model_stays(tmp_path, changes, fault):
    hospitals = make_hospitals(tmp_path, rounds=3)
    seen = Run(hospitals, masked_as(**changes))
    assert seen.outcome.rounds[1].faults == {fault: 2}
    assert (seen.outcome.rounds[1].survivors, seen.outcome.rounds[1].abort) == (2, "too few inputs")
    first, second, third = seen.models
    assert first == second != third


@pytest.mark.parametrize("flipped", [0, 1, 2, 31])
def test_numbers_that_cannot_be_read_at_all_are_not_added(tmp_path, flipped):
    def altered(site: str, answer: bytes) -> bytes:
        if site != "s2" or not is_masked(answer):
            return answer
        return answer[:flipped] + bytes([answer[flipped] ^ 0xFF]) + answer[flipped + 1 :]

    seen = Run(make_hospitals(tmp_path, rounds=2), altered)
    assert [(summary.survivors, summary.faults) for summary in seen.outcome.rounds] == [(3, {"unreadable": 1})] * 2


def is_masked(answer: bytes) -> bool:
    try:
        decode(answer, MaskedReply)
    except IntegrityError:
        return False
    return True
