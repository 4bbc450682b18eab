"""What a hospital's columns are called; apart from the reader of records, so that a config names them without it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from common.config import StrictConfig


class DataColumns(StrictConfig):
    """What the columns of a data file are called."""

    text: str = Field("text", min_length=1, description="the text to classify")
    label: str = Field("label", min_length=1, description="one of the plan's labels")
    patient: str | None = Field(
        "patient_id", description="whose row it is; the empty string: each row is its own patient"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that a file must have."""
        return (self.text, self.label) if self.patient is None else (self.text, self.label, self.patient)

    @field_validator("patient")
    @classmethod
    def _empty_is_none(cls, name: str | None) -> str | None:
        return name or None  # TOML has no null

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError("`text`, `label` and `patient` must be three different columns")
        return self
