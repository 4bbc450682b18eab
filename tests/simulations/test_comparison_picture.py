import struct

import pytest

from simulations import comparison_picture as module
from simulations.comparison_picture import comparison_picture

SERIES = {
    "non-private, pooled": [(None, 0.953, 0.001)],
    "DP-SGD, pooled": [(3.0, 0.91, 0.002), (8.0, 0.93, 0.003)],
    "federated": [(8.0, 0.92, 0.0)],
}


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def drawn(monkeypatch: pytest.MonkeyPatch, series: dict) -> object:
    """The axes of a picture."""
    made = []

    class Kept(module.Figure):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(module, "Figure", Kept)
    comparison_picture("AUC on the test set", series)
    return made[0].axes[0]


def test_a_picture_is_a_png_that_grows_with_its_rows() -> None:
    width, height = size(comparison_picture("AUC", SERIES))
    one_width, one_height = size(comparison_picture("AUC", {"federated": [(3.0, 0.9, 0.0)]}))
    assert width == one_width == 1040
    assert height > one_height


def test_each_arm_has_a_row_and_each_point_its_value_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, SERIES)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(SERIES)
    assert [text.get_text() for text in axes.texts] == ["0.953", "0.910", "0.930", "0.920"]
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first arm is at the top
    assert axes.get_xlabel() == "AUC on the test set"
    spans = [segment for collection in axes.collections for segment in collection.get_segments()]
    assert [round(float(span[1, 0] - span[0, 0]), 4) for span in spans] == [0.002, 0.004, 0.006, 0.0]


def test_an_epsilon_looks_the_same_in_every_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, SERIES)
    points = [line for line in axes.lines if line.get_marker() in ("o", "s", "*") and len(line.get_xdata())]
    looks = {float(line.get_xdata()[0]): (line.get_marker(), line.get_color()) for line in points}
    assert looks[0.93] == looks[0.92] != looks[0.91]
    assert looks[0.953] == ("*", "#000000")
    named = {
        line.get_label(): (line.get_marker(), line.get_color()) for line in axes.lines if not len(line.get_xdata())
    }
    assert named == {"ε = 3": looks[0.91], "ε = 8": looks[0.93], "no privacy": looks[0.953]}
