from dataclasses import FrozenInstanceError

import pytest

from common.findings import Finding, counted, times


def test_a_finding_without_mend_needs_none() -> None:
    assert Finding("pass", "rows", "there are rows").mend == ""


def test_a_finding_cannot_be_softened() -> None:
    with pytest.raises(FrozenInstanceError):
        Finding("fail", "rows", "there are no rows").level = "pass"  # type: ignore[misc]


def test_one_of_a_thing_is_said_as_one() -> None:
    assert (counted(1, "line"), counted(0, "line"), counted(1234, "line")) == ("1 line", "0 lines", "1,234 lines")
    assert (counted(1, "entry", "entries"), counted(2, "entry", "entries")) == ("1 entry", "2 entries")
    assert (times(1), times(2)) == ("once", "2 times")
