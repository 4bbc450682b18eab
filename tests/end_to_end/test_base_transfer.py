"""A base goes from the coordinator's store to a site's cache, over bytes that get lost, and kills at any write."""

import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import client.base_cache
import client.base_staging
import client.sealed_file
import server.base_store
from client.base_cache import BaseCache
from common.canonical import file_digest
from common.fields import CHUNK_BYTES
from common.plan import Plan
from common.study_messages import BaseChunk, BaseNeed
from common.wire import decode, encode, frame_bound
from server.base_store import BaseStore
from tests.plans import make_plan

SMALL = 8
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(20)), "vocab.txt": b""}
PLACES = [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (client.base_cache, client.base_staging, server.base_store):
        monkeypatch.setattr(module, "CHUNK_BYTES", SMALL)


def write_base(folder: Path) -> Plan:
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return plan_of(folder)


def plan_of(folder: Path) -> Plan:
    return make_plan(base={"name": "some", "files": {path.name: file_digest(path) for path in folder.iterdir()}})


def opened(folder: Path, plan: Plan) -> BaseCache:
    return BaseCache(folder, plan, "north", reserve_bytes=0)


def sent(store: BaseStore, needed: BaseNeed) -> BaseChunk | None:
    """The store's answer, in bytes in both directions."""
    chunk = store.answer(decode(encode(needed), BaseNeed))
    return None if chunk is None else decode(encode(chunk), BaseChunk, limit_bytes=frame_bound(CHUNK_BYTES // 4))


def transfer(store: BaseStore, cache: BaseCache, asked: Counter[tuple[int, int]] | None = None) -> BaseNeed:
    """Ask and send until nothing is needed."""
    needed = cache.need()
    while (chunk := sent(store, needed)) is not None:
        if asked is not None:
            asked[needed.file_number, needed.chunk_number] += 1
        needed = cache.receive(chunk)
    return needed


def received(cache: BaseCache) -> dict[str, bytes]:
    folder = cache.find()
    assert folder is not None
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("_small_chunks")
def test_a_base_arrives_chunk_by_chunk(tmp_path: Path) -> None:
    plan = write_base(tmp_path / "base")
    cache, asked = opened(tmp_path / "bases", plan), Counter[tuple[int, int]]()
    assert transfer(BaseStore(tmp_path / "base", plan), cache, asked).state == "complete"
    assert asked == Counter(PLACES)
    assert received(cache) == FILES


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("seed", range(20))
def test_lost_repeated_and_late_messages_change_nothing(tmp_path: Path, seed: int) -> None:
    """The coordinator sends what it believes is needed; needs and chunks get lost, and old chunks come once more."""
    plan, rng = write_base(tmp_path / "base"), np.random.default_rng(seed)
    store, cache = BaseStore(tmp_path / "base", plan), opened(tmp_path / "bases", plan)
    believed, chunks = cache.need(), []
    while believed.state != "complete":
        chunks.append(sent(store, believed))
        late = chunks[rng.integers(len(chunks))] if rng.random() < 0.5 else chunks[-1]
        needed = cache.receive(late) if rng.random() < 0.8 else cache.need()
        believed = needed if rng.random() < 0.7 else believed
    assert received(cache) == FILES


# --- killed at any write ---------------------------------------------------------------------------------------------


class Killer:
    """Counts moments, and kills at the one with the given number."""

    def __init__(self, moment: int) -> None:
        self.moment, self.count = moment, 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.moment:
            raise KilledError

    def around(self, act: Callable[..., None]) -> Callable[..., None]:
        def mortal(*arguments: object, **options: object) -> None:
            self()
            act(*arguments, **options)
            self()

        return mortal


def make_mortal(monkeypatch: pytest.MonkeyPatch, killer: Killer) -> None:
    """Every durable write of the site may be the last thing that happens; a chunk may be written in part."""
    write = client.base_staging._write_at

    def write_twice(path: Path, offset: int, content: np.ndarray) -> None:
        write(path, offset, content[: len(content) // 2])
        killer()
        write(path, offset, content)

    monkeypatch.setattr(client.base_staging, "_write_at", killer.around(write_twice))
    monkeypatch.setattr(client.base_staging, "sync_folder", killer.around(client.base_staging.sync_folder))
    monkeypatch.setattr(client.base_staging.shutil, "rmtree", killer.around(client.base_staging.shutil.rmtree))
    monkeypatch.setattr(client.sealed_file, "write_durably", killer.around(client.sealed_file.write_durably))


class Liar(BaseStore):
    """Sends one wrong chunk, the first time it is asked for it."""

    lies = 1

    def chunk(self, file_number: int, chunk_number: int) -> BaseChunk:
        chunk = super().chunk(file_number, chunk_number)
        if (file_number, chunk_number) != (2, 2) or not self.lies:
            return chunk
        self.lies -= 1
        return BaseChunk(chunk.plan_digest, 2, 2, chunk.chunks, np.zeros(SMALL, dtype=np.uint8))


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("kind", [BaseStore, Liar])
def test_a_site_killed_at_any_write_goes_on_where_it_was(tmp_path: Path, kind: type[BaseStore]) -> None:
    plan = write_base(tmp_path / "base")
    moments, moment, most = 1, 0, 0
    while moment <= moments:
        store, killer, folder = kind(tmp_path / "base", plan), Killer(moment), tmp_path / f"bases-{moment}"
        asked = Counter[tuple[int, int]]()
        with pytest.MonkeyPatch.context() as patch:
            make_mortal(patch, killer)
            try:
                transfer(store, opened(folder, plan), asked)
            except KilledError:
                before = asked.total()
        cache = opened(folder, plan)
        assert transfer(store, cache, asked).state == "complete"
        assert received(cache) == FILES
        assert [path for path in folder.iterdir() if path.name.endswith((".partial", ".progress"))] == []
        # Only the chunk that was under way is sent once more; the liar's file is sent twice anyway.
        assert asked.total() <= len(PLACES) + 1 + (3 if kind is Liar else 0)
        most = max(most, asked.total() - before) if 0 < moment <= killer.count else most
        moments, moment = max(moments, killer.count), moment + 1
    assert moments > 25
    assert most >= len(PLACES)


@pytest.mark.usefixtures("_small_chunks")
def test_a_site_that_is_killed_again_and_again_gets_its_base(tmp_path: Path) -> None:
    plan, lives, state = write_base(tmp_path / "base"), 0, ""
    while state != "complete":
        lives += 1
        with pytest.MonkeyPatch.context() as patch:
            make_mortal(patch, Killer(9))
            try:
                state = transfer(BaseStore(tmp_path / "base", plan), opened(tmp_path / "bases", plan)).state
            except KilledError:
                continue
    assert lives > 3
    assert received(opened(tmp_path / "bases", plan)) == FILES


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("megabytes", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_large_base_takes_the_memory_of_a_few_chunks(tmp_path: Path, megabytes: int) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_bytes(b"{}")
    with (base / "model.safetensors").open("wb") as stream:
        stream.truncate(megabytes * 10**6 + 1)  # a hole: nothing is on the disk on this side
    plan = plan_of(base)
    tracemalloc.start()
    try:
        cache = opened(tmp_path / "bases", plan)
        assert transfer(BaseStore(base, plan), cache).state == "complete"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The chunk, its copy in a frame, and the pieces of that frame, at both ends.
    assert peak < 6 * CHUNK_BYTES
    weights = cache.find() / "model.safetensors"
    assert weights.stat().st_size == megabytes * 10**6 + 1
    weights.unlink()
