import errno
import hashlib
import shutil
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

import client.base_cache
import client.base_staging
from client.base_cache import BaseCache
from common.errors import ConfigError, IntegrityError, RefusedError
from common.study_messages import BaseChunk, BaseNeed
from common.wire import encode
from tests.plans import make_plan

SMALL = 8
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(20)), "vocab.txt": b""}
INDEX = "model.safetensors.index.json"
PLACES = [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    for module in (client.base_cache, client.base_staging):
        monkeypatch.setattr(module, "CHUNK_BYTES", SMALL)


def plan_of(files, **changes):
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return make_plan(base={"name": "some", "files": hashes}, **changes)


PLAN = plan_of(FILES)
OTHER_PLAN = plan_of(FILES, rounds=7)


def chunk(file_number, chunk_number, /, files=FILES, plan=PLAN, **changes):
    whole = files[sorted(files)[file_number - 1]]
    values = {
        "plan_digest": plan.digest,
        "file_number": file_number,
        "chunk_number": chunk_number,
        "chunks": max(1, -(-len(whole) // SMALL)),
        "content": whole[(chunk_number - 1) * SMALL : chunk_number * SMALL],
    } | changes
    return BaseChunk(**{**values, "content": np.frombuffer(values["content"], dtype=np.uint8)})


def need(state, file_number=0, chunk_number=0, plan=PLAN):
    return BaseNeed(plan.digest, "north", state, file_number, chunk_number)


def opened(folder, plan=PLAN, local=(), **limits):
    return BaseCache(folder / "bases", plan, "north", local, **{"reserve_bytes": 0, **limits})


def write_base(folder, files=FILES):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def received(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def kept(folder):
    return sorted(path.name for path in (folder / "bases").iterdir())


# --- the ordinary course ---------------------------------------------------------------------------------------------


def test_a_base_that_is_lacking_is_received_and_kept(tmp_path):
    cache = opened(tmp_path)
    assert cache.find() is None
    for place, following in pairwise(PLACES):
        assert cache.need() == need("lacking", *place)
        assert cache.receive(chunk(*place)) == need("lacking", *following)
        assert cache.find() is None
    assert cache.receive(chunk(*PLACES[-1])) == need("complete")
    assert kept(tmp_path) == [PLAN.base.digest]
    for again in (cache, opened(tmp_path)):
        assert again.need() == need("complete")
        assert again.find() == tmp_path / "bases" / PLAN.base.digest
    assert received(again.find()) == FILES


def test_every_answer_can_be_sent(tmp_path):
    cache = opened(tmp_path)
    assert encode(cache.need())
    for place in PLACES:
        assert encode(cache.receive(chunk(*place)))


def test_a_local_copy_is_taken_by_its_hashes_and_nothing_is_received(tmp_path):
    other = write_base(tmp_path / "other", {**FILES, "config.json": b"{ }"})
    same = write_base(tmp_path / "same")
    cache = opened(tmp_path, local=["package:no_such_package/model", str(other), str(same)])
    assert cache.find() == same
    assert cache.need() == need("complete")
    assert cache.receive(chunk(1, 1)) == need("complete")
    assert kept(tmp_path) == []


def test_another_plan_with_the_same_files_shares_what_is_kept(tmp_path):
    renamed = make_plan(base={"name": "called otherwise", "files": dict(PLAN.base.files)})
    waiting = opened(tmp_path, OTHER_PLAN)
    waiting.receive(chunk(1, 1, plan=OTHER_PLAN))
    for place in PLACES:
        opened(tmp_path).receive(chunk(*place))
    for plan in (renamed, OTHER_PLAN):
        assert opened(tmp_path, plan).find() == opened(tmp_path).find()
    # A cache that was open all the time sees it too, and what it had received in part is gone.
    assert waiting.need() == need("complete", plan=OTHER_PLAN)
    assert kept(tmp_path) == [PLAN.base.digest]


def test_a_base_with_one_other_byte_is_not_shared(tmp_path):
    for place in PLACES:
        opened(tmp_path).receive(chunk(*place))
    changed = plan_of({**FILES, "vocab.txt": b"x"})
    assert opened(tmp_path, changed).need() == need("lacking", 1, 1, plan=changed)


def test_a_kept_copy_that_was_damaged_is_deleted_and_asked_for_again(tmp_path):
    for place in PLACES:
        opened(tmp_path).receive(chunk(*place))
    place = opened(tmp_path).find()
    (place / "adapter.safetensors").write_bytes(b"put there by somebody")
    cache = opened(tmp_path)
    assert cache.need() == need("lacking", 1, 1)
    assert not place.exists()


# --- what is not written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [chunk(1, 1), chunk(2, 1), chunk(2, 3), chunk(3, 1), chunk(2, 2, file_number=9)], ids=range(5)
)
def test_a_chunk_out_of_order_is_answered_with_what_is_needed(tmp_path, other):
    cache = opened(tmp_path)
    for place in PLACES[:2]:
        cache.receive(chunk(*place))
    before = received(next((tmp_path / "bases").glob(".*.partial")))
    assert cache.receive(other) == need("lacking", 2, 2)
    assert received(next((tmp_path / "bases").glob(".*.partial"))) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"content": bytes(SMALL - 1)},
        {"content": bytes(SMALL + 1)},
        {"content": b""},
        {"chunks": 1, "content": bytes(SMALL + 1)},
        {"chunks": 1, "chunk_number": 2},
    ],
    ids=range(5),
)
def test_a_chunk_of_another_length_or_beyond_the_last_is_refused(tmp_path, changes):
    cache = opened(tmp_path)
    cache.receive(chunk(1, 1))
    if changes.get("chunk_number") == 2:
        cache.receive(chunk(2, 1))
    with pytest.raises(IntegrityError, match=r"chunk \d of \d (has \d+ bytes|cannot be)"):
        cache.receive(chunk(2, 1, **changes))
    assert cache.need().file_number == 2


def test_a_file_of_several_chunks_has_no_empty_last_one(tmp_path):
    cache = opened(tmp_path)
    for place in PLACES[:3]:
        cache.receive(chunk(*place))
    with pytest.raises(IntegrityError, match="chunk 3 of 3 has 0 bytes"):
        cache.receive(chunk(2, 3, content=b""))


def test_a_chunk_of_another_plan_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="another plan"):
        opened(tmp_path).receive(chunk(1, 1, plan=OTHER_PLAN))
    assert kept(tmp_path) == []


@pytest.mark.parametrize("name", ["../ledger.sqlite", "../../keys/identity.key", "run.py", ".hidden.json"])
def test_a_plan_that_names_other_files_gets_nowhere(tmp_path, name):
    with pytest.raises(ConfigError, match="which no base may have"):
        opened(tmp_path, plan_of({**FILES, name: b""}))


def test_wrong_bytes_are_given_up_after_the_third_time_and_asked_for_again_when_told(tmp_path):
    cache = opened(tmp_path)
    for _ in range(2):
        assert cache.receive(chunk(1, 1, content=b"[]")) == need("lacking", 1, 1)
    assert cache.receive(chunk(1, 1, content=b"[]")) == need("damaged")
    for again in (cache, opened(tmp_path)):
        assert again.need() == need("damaged")
        assert again.receive(chunk(1, 1)) == need("damaged")
    again.discard()
    for place in PLACES:
        again.receive(chunk(*place))
    assert received(again.find()) == FILES


def test_an_index_that_leads_elsewhere_is_never_put_in_place(tmp_path):
    files = {"config.json": b"{}", INDEX: b'{"weight_map": {"a": "../model.safetensors"}}'}
    plan = plan_of(files)
    cache = opened(tmp_path, plan)
    while (needed := cache.need()).state == "lacking":
        cache.receive(chunk(needed.file_number, needed.chunk_number, files, plan))
    assert needed.state == "damaged"
    assert cache.find() is None
    assert not (tmp_path / "bases" / plan.base.digest).exists()


# --- room ------------------------------------------------------------------------------------------------------------


def test_a_file_beyond_the_limit_is_refused_at_its_first_chunk(tmp_path):
    note = 600  # the note of what has come takes some room too
    for limit, state in ((2 + 17 + note, "lacking"), (2 + 16, "no-room")):
        shutil.rmtree(tmp_path / "bases", ignore_errors=True)
        cache = opened(tmp_path, limit_bytes=limit)
        cache.receive(chunk(1, 1))
        assert cache.receive(chunk(2, 1)).state == state
    assert not list((tmp_path / "bases").rglob("model.safetensors"))


def test_what_other_bases_take_counts(tmp_path):
    write_base(tmp_path / "bases" / "another", {"model.safetensors": bytes(1000)})
    assert opened(tmp_path, limit_bytes=1001).receive(chunk(1, 1)) == need("no-room")
    assert opened(tmp_path, limit_bytes=1002).receive(chunk(1, 1)) == need("lacking", 2, 1)


def test_a_claim_of_endless_chunks_has_no_room(tmp_path):
    cache = opened(tmp_path, limit_bytes=10**9)
    assert cache.receive(chunk(1, 1, chunks=2**31 - 1, content=bytes(SMALL))) == need("no-room")
    assert kept(tmp_path) == []


@pytest.mark.parametrize(("free", "state"), [(1017, "lacking"), (1016, "no-room")])
def test_the_reserve_of_the_disk_is_left_alone(tmp_path, monkeypatch, free, state):
    cache = opened(tmp_path, reserve_bytes=1000)
    cache.receive(chunk(1, 1))
    monkeypatch.setattr(client.base_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert cache.receive(chunk(2, 1)).state == state
    monkeypatch.undo()


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_disk_that_is_full_all_the_same_is_told(tmp_path, monkeypatch, number, full):
    def fail(*_, **__):
        raise OSError(number, "the disk fails")

    cache = opened(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(client.base_staging, "_write_at", fail)
        if full:
            assert cache.receive(chunk(1, 1)) == need("no-room")
        else:
            with pytest.raises(OSError, match="the disk fails"):
                cache.receive(chunk(1, 1))
    assert cache.receive(chunk(1, 1)) == need("lacking", 2, 1)
