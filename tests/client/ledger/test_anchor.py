import errno
import os

import pytest

import client.ledger.anchor
from client.ledger.anchor import Anchor, host_identifier, read_anchor, write_anchor
from client.ledger.rows import NOTHING_BEFORE, Row
from common.errors import IntegrityError, TryAgainError
from common.identity import new_identity, public_name, sign
from tests.client.ledger_site import HOST

IDENTITY = new_identity()
PUBLIC = public_name(IDENTITY)
ANCHOR = Anchor(sequence=7, head="a" * 64, host=HOST)


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_anchor_comes_back_as_it_went_in_and_is_private(tmp_path):
    path = tmp_path / "ledger.anchor"
    write_anchor(path, ANCHOR, IDENTITY)
    assert read_anchor(path, PUBLIC) == ANCHOR
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_names_the_last_entry(tmp_path):
    row = Row(7, "now", "commit", "{}", "b" * 64, "a" * 64, "")
    assert Anchor.at(row, HOST) == ANCHOR
    assert Anchor(host=HOST) == Anchor(sequence=0, head=NOTHING_BEFORE, host=HOST)


def test_none_is_none(tmp_path):
    assert read_anchor(tmp_path / "ledger.anchor", PUBLIC) is None


def test_a_signature_for_another_purpose_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(client.ledger.anchor, "sign", lambda key, _, content: sign(key, "ledger entry", content))
    write_anchor(tmp_path / "ledger.anchor", ANCHOR, IDENTITY)
    with pytest.raises(IntegrityError, match="that this site did not sign"):
        read_anchor(tmp_path / "ledger.anchor", PUBLIC)


def test_every_byte_of_it_counts(tmp_path):
    path = tmp_path / "ledger.anchor"
    write_anchor(path, ANCHOR, IDENTITY)
    content = path.read_bytes()
    for position in range(0, len(content) - 1, 5):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(IntegrityError):
            read_anchor(path, PUBLIC)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "ledger.anchor"
    write_anchor(path, ANCHOR, IDENTITY)
    path.write_bytes(b" " * 5000 + path.read_bytes())
    with pytest.raises(IntegrityError, match="damaged anchor"):
        read_anchor(path, PUBLIC)


def test_a_full_disk_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "ledger.anchor"
    write_anchor(path, ANCHOR, IDENTITY)
    for place in ("os.fsync", "tempfile.mkstemp"):
        with monkeypatch.context() as patch:
            patch.setattr(f"common.files.{place}", full)
            with pytest.raises(TryAgainError, match="No space left on device"):
                write_anchor(path, ANCHOR.model_copy(update={"sequence": 8}), IDENTITY)
        assert read_anchor(path, PUBLIC) == ANCHOR
        assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_read_is_a_passing_fault(tmp_path):
    with pytest.raises(TryAgainError, match="Is a directory"):
        read_anchor(tmp_path, PUBLIC)


# --- the machine's name ----------------------------------------------------------------------------------------------


@pytest.fixture
def machine_id(tmp_path, monkeypatch):
    path = tmp_path / "machine-id"
    monkeypatch.setattr(client.ledger.anchor, "_MACHINE_ID", path)
    return path


@pytest.fixture
def keys(tmp_path):
    (tmp_path / "keys").mkdir()
    return tmp_path / "keys"


def test_a_machine_is_named_by_its_id_which_it_does_not_tell(machine_id, keys):
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    name = host_identifier(keys)
    assert name == host_identifier(keys)
    assert len(name) == 64
    assert "0123456789abcdef" not in name
    assert list(keys.iterdir()) == []
    machine_id.write_text("fedcba9876543210fedcba9876543210\n")
    assert host_identifier(keys) != name


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_without_an_id_a_file_is_made_once_and_kept(machine_id, keys, content):
    if content is not None:
        machine_id.write_text(content)
    name = host_identifier(keys)
    assert [one.name for one in keys.iterdir()] == ["host.id"]
    assert (keys / "host.id").stat().st_mode & 0o777 == 0o600
    machine_id.write_text("an id that appears later")
    assert host_identifier(keys) == name
    (keys / "host.id").unlink()
    assert host_identifier(keys) != name


def test_two_machines_without_an_id_have_two_names(machine_id, tmp_path):
    names = set()
    for one in ("first", "second"):
        (tmp_path / one).mkdir()
        names.add(host_identifier(tmp_path / one))
    assert len(names) == 2


def test_a_name_that_can_be_neither_read_nor_made_is_a_passing_fault(machine_id, tmp_path):
    with pytest.raises(TryAgainError, match="No such file"):
        host_identifier(tmp_path / "none")


def test_the_id_is_where_systemd_puts_it():
    assert str(client.ledger.anchor._MACHINE_ID) == "/etc/machine-id"
