import pytest

from client.commands.records_view import fit_in_words
from client.data_check import Fit
from common.findings import Finding

FAIL, WARN = (Finding(level, "files", "a sentence") for level in ("fail", "warn"))


@pytest.mark.parametrize(
    ("fit", "told"),
    [
        (
            Fit((FAIL,), 676, 0),
            "none of your 676 rows would add anything to this plan; its ε would be spent all the same",
        ),
        (Fit((FAIL,), 0, 0), "no row of yours would add anything to this plan"),
        (Fit((FAIL,), 676, 674), "2 of your 676 rows would add nothing to this plan"),
        (Fit((FAIL,), 676, 676), "failed"),
        (Fit((WARN,), 676, 676), "the records fit the plan"),
    ],
)
def test_findings_come_to_how_many_rows_add_nothing(fit: Fit, told: str) -> None:
    words = " ".join(fit_in_words(fit))
    assert told in words
    assert ("the coordinator is not told so" in words) == (fit.usable < max(1, fit.rows))
