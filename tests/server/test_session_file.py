"""What a coordinator finds again after a kill: the session, and a sum that waits for its masks."""

import numpy as np
import pytest

from common.errors import IntegrityError
from common.wire import encode
from server.session_file import (
    PENDING_NAME,
    SESSION_NAME,
    PendingSum,
    forget_session,
    load_pending,
    load_session,
    save_pending,
    save_session,
)
from tests.secagg_play import make_study

ORDER, OTHER = "a" * 64, "b" * 64
PENDING = PendingSum(ORDER, ("a00", "a02"), np.arange(128, dtype=np.uint8), np.uint32([0, 1, 2**32 - 1]))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def session(study):
    """Four sites gave keys; three dealt shares."""
    return study.session(study.roster(rounds=2), without=["a01"])


def test_a_session_is_found_again_whole(tmp_path, study, session):
    assert load_session(tmp_path, study.plan) is None
    save_session(tmp_path, session)
    found = load_session(tmp_path, study.plan)
    assert (found.id, found.rounds, found.cohort) == (session.id, range(1, 3), ("a00", "a02", "a03"))
    assert encode(found.roster) == encode(session.roster)
    assert {site: encode(part) for site, part in found.dealt.items()} == {
        site: encode(part) for site, part in session.dealt.items()
    }
    assert found.plan is study.plan


def test_a_later_session_replaces_the_one_before(tmp_path, study, session):
    save_session(tmp_path, session)
    roster = study.roster(session="77" * 32, first_round=2)
    save_session(tmp_path, study.session(roster))
    assert load_session(tmp_path, study.plan).id == "77" * 32


def test_a_session_that_was_given_up_is_not_found_again(tmp_path, study, session):
    save_session(tmp_path, session)
    forget_session(tmp_path)
    assert load_session(tmp_path, study.plan) is None
    forget_session(tmp_path)
    assert load_session(tmp_path, study.plan) is None


def test_a_session_of_another_plan_is_refused(tmp_path, session):
    save_session(tmp_path, session)
    with pytest.raises(IntegrityError, match="belongs to another plan") as caught:
        load_session(tmp_path, make_study(tmp_path).plan)
    assert caught.value.exit_code == 13
    assert "plan that began the run" in caught.value.hint


def test_a_pending_sum_is_found_again_for_its_order_alone(tmp_path):
    assert load_pending(tmp_path, ORDER) is None
    save_pending(tmp_path, PENDING)
    assert load_pending(tmp_path, OTHER) is None
    found = load_pending(tmp_path, ORDER)
    assert (found.order_digest, found.survivors) == (ORDER, ("a00", "a02"))
    assert found.masked_total.dtype == np.uint32
    assert found.masked_total.tolist() == [0, 1, 2**32 - 1]
    save_pending(tmp_path, PendingSum(OTHER, (), np.zeros(0, np.uint8), np.zeros(1, np.uint32)))
    assert load_pending(tmp_path, ORDER) is None
    assert load_pending(tmp_path, OTHER).survivors == ()


def test_each_file_is_replaced_in_one_step(tmp_path, session, monkeypatch):
    save_session(tmp_path, session)
    save_pending(tmp_path, PENDING)
    kept = {name: (tmp_path / name).read_bytes() for name in (SESSION_NAME, PENDING_NAME)}

    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", full)
    for write in (
        lambda: save_session(tmp_path, session),
        lambda: forget_session(tmp_path),
        lambda: save_pending(tmp_path, PendingSum(OTHER, (), np.zeros(0, np.uint8), np.zeros(1, np.uint32))),
    ):
        with pytest.raises(OSError, match="full"):
            write()
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def damaged(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "empty": b"",
        "not a file of tensors": b"nothing of the kind, and long enough to have a header",
        "cut": content[:-1],
        "longer": content + b"\0",
        "a bit of the values": content[:-1] + bytes([content[-1] ^ 1]),
        "a bit of the middle": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "a bit of the header": content.replace(b"sha256", b"sha255"),
        "another document": content.replace(b"a00", b"a01", 1),
        "a header that nests too deep": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    }


@pytest.mark.parametrize("fault", damaged(b"sha256 a00"))
def test_damage_is_noticed_in_either_file(tmp_path, study, session, fault):
    save_session(tmp_path, session)
    save_pending(tmp_path, PENDING)
    for name, load in (
        (SESSION_NAME, lambda: load_session(tmp_path, study.plan)),
        (PENDING_NAME, lambda: load_pending(tmp_path, ORDER)),
    ):
        content = (tmp_path / name).read_bytes()
        changed = damaged(content)[fault]
        assert changed != content
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(IntegrityError, match=f"{name} is damaged") as caught:
            load()
        assert "delete it" in caught.value.hint
        (tmp_path / name).unlink()
        assert load() is None  # what the hint says works


def test_the_files_hold_no_secret_and_no_sites_numbers(tmp_path, study, session):
    """The keys in a session are public ones and its shares are sealed; nothing is left of any site's own vector."""
    save_session(tmp_path, session)
    content = (tmp_path / SESSION_NAME).read_bytes()
    for half in study.sites.values():
        secret = half._book.secret
        for number in (1, 2):
            assert secret.self_seed(number) not in content
            assert secret.mask_key_bytes(number) not in content
