import pytest

from common.sparkline import sparkline


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([1.0, 1.0], "▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([2.0, 1.0], "█▁"),
        ([*([9.0] * 5), *([1.0] * 39), 2.0], "▁" * 39 + "█"),
    ],
)
def test_sparkline_by_hand(values: list[float], line: str) -> None:
    assert sparkline(values) == line
