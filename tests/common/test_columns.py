import pytest
from pydantic import ValidationError

from common.columns import DataColumns


def test_columns_must_differ() -> None:
    with pytest.raises(ValidationError, match="three different columns"):
        DataColumns(text="label")


def test_no_patient_column_can_be_said_in_toml() -> None:
    assert DataColumns(patient="").patient is None
    assert DataColumns(patient="").names == ("text", "label")
