import pytest

from client.node_number import NodeNumber


def test_a_number_is_kept(tmp_path):
    NodeNumber(tmp_path / "number").keep(2**64 - 1)
    assert NodeNumber(tmp_path / "number").read() == 2**64 - 1


@pytest.mark.parametrize("content", [b"", b"seven", b"-1", b"0", b"1.5", b"\xff", b"%d" % 2**64, b"9" * 5000])
def test_anything_else_is_no_number(tmp_path, content):
    (tmp_path / "number").write_bytes(content)
    assert NodeNumber(tmp_path / "number").read() == 0


def test_without_a_file_there_is_none_and_a_full_disk_is_no_error(tmp_path):
    NodeNumber(None).keep(7)
    NodeNumber(tmp_path / "no folder" / "number").keep(7)
    assert NodeNumber(None).read() == NodeNumber(tmp_path / "no folder" / "number").read() == 0
