import hashlib
import json
import stat

import numpy as np
import pytest

import client.base_staging
import client.sealed_file
from client.base_staging import MOST_ATTEMPTS, Staging
from common.errors import ConfigError
from common.study_messages import BaseChunk
from tests.plans import make_plan

SMALL = 8
FILES = {"config.json": b"", "model.safetensors": bytes(range(20)), "vocab.txt": b"8 bytes!"}
CONTENTS = list(FILES.values())


def plan_of(files):
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return make_plan(base={"name": "some", "files": hashes})


PLAN = plan_of(FILES)
NOTE = f".{PLAN.digest}.progress"
PLACES = [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(client.base_staging, "CHUNK_BYTES", SMALL)


def chunk(file_number, chunk_number, content=None, chunks=None):
    whole = CONTENTS[file_number - 1]
    piece = whole[(chunk_number - 1) * SMALL : chunk_number * SMALL] if content is None else content
    chunks = chunks or max(1, -(-len(whole) // SMALL))
    return BaseChunk(PLAN.digest, file_number, chunk_number, chunks, np.frombuffer(piece, dtype=np.uint8))


def received(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_chunks_in_order_make_the_files(tmp_path):
    staging = Staging(tmp_path, PLAN)
    for place in PLACES:
        assert not staging.is_whole
        assert staging.next == place
        staging.take(chunk(*place))
    assert staging.is_whole
    assert received(staging.folder) == FILES
    staging.move_to(tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert received(tmp_path / "whole") == FILES


def test_what_came_is_known_to_the_next_process(tmp_path):
    for place in PLACES:
        assert Staging(tmp_path, PLAN).next == place
        Staging(tmp_path, PLAN).take(chunk(*place))
    assert Staging(tmp_path, PLAN).is_whole


def test_folder_and_files_are_for_the_owner_only(tmp_path):
    staging = Staging(tmp_path, PLAN)
    for place in PLACES[:2]:
        staging.take(chunk(*place))
    assert stat.S_IMODE(staging.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in [*staging.folder.iterdir(), tmp_path / NOTE]} == {0o600}


@pytest.mark.parametrize(("came", "content"), [(2, b"8 others"), (3, b"too long")])
def test_a_chunk_that_was_written_but_not_noted_is_written_over(tmp_path, monkeypatch, came, content):
    staging = Staging(tmp_path, PLAN)
    for place in PLACES[:came]:
        staging.take(chunk(*place))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(client.sealed_file, "write_durably", full)
        with pytest.raises(OSError, match="No space left"):
            staging.take(chunk(2, came, content=content))
    assert (staging.folder / "model.safetensors").read_bytes().endswith(content)
    for again in (staging, Staging(tmp_path, PLAN)):
        assert again.next == (2, came)
    for place in PLACES[came:]:
        again.take(chunk(*place))
    assert received(again.folder) == FILES


def test_a_file_with_a_wrong_hash_is_deleted_and_asked_for_again_twice(tmp_path):
    Staging(tmp_path, PLAN).take(chunk(1, 1))
    for failures in range(1, MOST_ATTEMPTS + 1):
        for place in PLACES[1:4]:
            staging = Staging(tmp_path, PLAN)
            assert not staging.has_failed
            assert staging.next == place
            staging.take(chunk(*place, content=b"wrong!!!" if place[1] < 3 else b"wrong"))
        assert staging.has_failed == Staging(tmp_path, PLAN).has_failed == (failures == 3)
        assert not (staging.folder / "model.safetensors").exists()
    assert not staging.folder.exists()
    staging.discard()
    for again in (staging, Staging(tmp_path, PLAN)):
        assert (again.has_failed, again.next) == (False, (1, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_length_changes_on_the_way_starts_over(tmp_path):
    staging = Staging(tmp_path, PLAN)
    for place in PLACES[:3]:
        staging.take(chunk(*place))
    staging.take(chunk(2, 3, chunks=4))
    assert staging.next == (2, 1)
    for place in PLACES[1:]:
        staging.take(chunk(*place))
    assert received(staging.folder) == FILES


def test_who_gave_up_starts_over_only_when_told_so(tmp_path):
    staging = Staging(tmp_path, PLAN)
    staging.take(chunk(1, 1))
    staging.give_up("for a reason")
    assert staging.has_failed
    assert Staging(tmp_path, PLAN).has_failed
    assert not staging.folder.exists()


def begun(tmp_path):
    staging = Staging(tmp_path, PLAN)
    for place in PLACES[:3]:
        staging.take(chunk(*place))
    return staging


@pytest.mark.parametrize(
    "damage",
    [
        lambda note, folder: note.write_bytes(note.read_bytes()[:-1]),
        lambda note, folder: note.write_bytes(b""),
        lambda note, folder: note.unlink(),
        lambda note, folder: (folder / "config.json").unlink(),
        lambda note, folder: (folder / "model.safetensors").unlink(),
        lambda note, folder: (folder / "model.safetensors").write_bytes(bytes(2 * SMALL - 1)),
    ],
    ids=range(6),
)
def test_a_note_that_cannot_be_believed_is_forgotten(tmp_path, damage):
    damage(tmp_path / NOTE, begun(tmp_path).folder)
    staging = Staging(tmp_path, PLAN)
    assert staging.next == (1, 1)
    for place in PLACES:
        staging.take(chunk(*place))
    assert received(staging.folder) == FILES


@pytest.mark.parametrize("changes", [{"file_number": 5}, {"plan_digest": "0" * 64}, {"received": -1}, {"more": 1}])
def test_a_note_that_this_plan_cannot_have_is_forgotten(tmp_path, changes):
    begun(tmp_path)
    body = (tmp_path / NOTE).read_bytes()[:-32]
    body = json.dumps(json.loads(body) | changes).encode() + b"\n"
    (tmp_path / NOTE).write_bytes(body + hashlib.sha256(body).digest())
    assert Staging(tmp_path, PLAN).next == (1, 1)


def test_failures_are_remembered_when_the_folder_is_lost(tmp_path):
    staging = begun(tmp_path)
    staging.start_over("for a reason")
    (staging.folder / "config.json").unlink()
    again = Staging(tmp_path, PLAN)
    assert again.next == (1, 1)
    again.start_over("for a reason")
    again.start_over("for a reason")
    assert again.has_failed


def test_nothing_is_written_through_a_link(tmp_path):
    staging = Staging(tmp_path, PLAN)
    staging.folder.mkdir()
    (tmp_path / "target").write_bytes(b"mine")
    (staging.folder / "config.json").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"):
        staging.take(chunk(1, 1))
    assert (tmp_path / "target").read_bytes() == b"mine"


def test_a_plan_with_other_names_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match="which no base may have"):
        Staging(tmp_path, plan_of({**FILES, "../ledger.sqlite": b""}))
