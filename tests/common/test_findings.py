from dataclasses import FrozenInstanceError

import pytest

from common.findings import Finding


def test_a_finding_without_mend_needs_none() -> None:
    assert Finding("pass", "rows", "there are rows").mend == ""


def test_a_finding_cannot_be_softened() -> None:
    with pytest.raises(FrozenInstanceError):
        Finding("fail", "rows", "there are no rows").level = "pass"  # type: ignore[misc]
