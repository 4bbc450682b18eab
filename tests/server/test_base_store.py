import hashlib
import os

import numpy as np
import pytest

import server.base_store
from common.errors import ConfigError, IntegrityError, RefusedError
from common.fields import CHUNK_BYTES
from common.study_messages import BaseNeed
from common.wire import encode
from server.base_store import BaseStore
from tests.plans import make_plan

SMALL = 16
FILES = {
    "config.json": b"",
    "model.safetensors": bytes(range(3 * SMALL)),
    "tokenizer.json": b"exactly 16 bytes",
    "vocab.txt": b"x",
}
CHUNKS = {"config.json": 1, "model.safetensors": 3, "tokenizer.json": 1, "vocab.txt": 1}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(server.base_store, "CHUNK_BYTES", SMALL)


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def plan_of(files):
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return make_plan(base={"name": "some", "files": hashes})


PLAN = plan_of(FILES)


def lacking(file_number, chunk_number, plan_digest=PLAN.digest, state="lacking"):
    return BaseNeed(plan_digest, "north", state, file_number, chunk_number)


def test_the_chunks_of_all_files_make_up_the_base(folder):
    store = BaseStore(folder, PLAN)
    assert store.size_bytes == sum(map(len, FILES.values()))
    for number, (name, content) in enumerate(sorted(FILES.items()), 1):
        chunks = [store.answer(lacking(number, place)) for place in range(1, CHUNKS[name] + 1)]
        assert b"".join(chunk.content.tobytes() for chunk in chunks) == content
        assert {(chunk.plan_digest, chunk.file_number, chunk.chunks) for chunk in chunks} == {
            (PLAN.digest, number, CHUNKS[name])
        }
        assert [chunk.chunk_number for chunk in chunks] == list(range(1, CHUNKS[name] + 1))
        assert all(len(chunk.content) == SMALL for chunk in chunks[:-1])
        assert all(encode(chunk) for chunk in chunks)


@pytest.mark.parametrize("state", ["complete", "damaged", "no-room"])
def test_who_lacks_nothing_or_has_given_up_gets_nothing(folder, state):
    assert BaseStore(folder, PLAN).answer(lacking(0, 0, state=state)) is None


@pytest.mark.parametrize(
    ("need", "rule"),
    [
        (lacking(0, 1), "there is no file 0"),
        (lacking(5, 1), "has 4 files, so there is no file 5"),
        (lacking(2, 0), "there is no chunk 0"),
        (lacking(2, 4), "model.safetensors has 3 chunks, so there is no chunk 4"),
        (lacking(1, 2), "config.json has 1 chunks"),
        (lacking(1, 1, plan_digest="0" * 64), "asks for the base of another plan"),
    ],
)
def test_there_is_no_other_chunk(folder, need, rule):
    with pytest.raises(RefusedError, match=rule):
        BaseStore(folder, PLAN).answer(need)


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_or_missing_file_is_told_at_the_start(folder, name):
    (folder / name).write_bytes(b"another")
    with pytest.raises(IntegrityError, match=f"{name} in .* is not the file that the plan names"):
        BaseStore(folder, PLAN)
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"{name} of base model some is not in"):
        BaseStore(folder, PLAN)
    (folder / name).mkdir()
    with pytest.raises(ConfigError, match=f"{name} of base model some is not in"):
        BaseStore(folder, PLAN)


def test_a_named_pipe_is_not_waited_for(folder):
    (folder / "vocab.txt").unlink()
    os.mkfifo(folder / "vocab.txt")
    with pytest.raises(ConfigError, match=r"vocab\.txt"):
        BaseStore(folder, PLAN)


@pytest.mark.parametrize("name", ["../model.safetensors", "keys.pem", ".model.safetensors"])
def test_no_file_of_another_name_is_ever_opened(folder, name):
    with pytest.raises(ConfigError, match="which no base may have"):
        BaseStore(folder, plan_of({**FILES, name: b""}))


def test_an_index_that_leads_elsewhere_is_not_handed_out(folder):
    index = b'{"weight_map": {"one": "../other.safetensors"}}'
    (folder / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(IntegrityError, match="names a file that the plan does not"):
        BaseStore(folder, plan_of({**FILES, "model.safetensors.index.json": index}))


def write(path, content):
    path.write_bytes(content)


def exchange(path, content):
    path.with_name("other").write_bytes(content)
    path.with_name("other").replace(path)


@pytest.mark.parametrize("change", [write, exchange])
def test_a_file_that_is_changed_meanwhile_is_hashed_again(folder, change):
    store = BaseStore(folder, PLAN)
    path = folder / "model.safetensors"
    change(path, FILES["model.safetensors"][::-1])
    os.utime(path, ns=(0, 0))  # a change in the same tick of the clock shows too
    for _ in range(2):
        with pytest.raises(IntegrityError, match="is not the file that the plan names"):
            store.chunk(2, 1)
    assert len(store.chunk(3, 1).content) == SMALL
    change(path, FILES["model.safetensors"])
    assert store.chunk(2, 1).content.tobytes() == FILES["model.safetensors"][:SMALL]
    path.unlink()
    with pytest.raises(ConfigError, match="is not in"):
        store.chunk(2, 2)


def test_an_unchanged_file_is_hashed_once(folder, monkeypatch):
    store = BaseStore(folder, PLAN)
    monkeypatch.setattr(server.base_store, "file_digest", None)
    for chunk_number in (1, 2, 3, 1):
        store.chunk(2, chunk_number)


def test_a_full_chunk_is_what_a_message_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(server.base_store, "CHUNK_BYTES", CHUNK_BYTES)
    content = bytes(CHUNK_BYTES + 1)
    (tmp_path / "model.safetensors").write_bytes(content)
    store = BaseStore(tmp_path, plan_of({"model.safetensors": content}))
    first, last = store.chunk(1, 1), store.chunk(1, 2)
    assert [np.shape(chunk.content) for chunk in (first, last)] == [(CHUNK_BYTES,), (1,)]
    assert len(encode(first)) > CHUNK_BYTES
