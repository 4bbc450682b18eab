"""A scenario: one plan, some data, and how to share it out to virtual hospitals on one machine."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from common.columns import DataColumns
from common.compute import ComputeConfig
from common.config import Names, StrictConfig, parse_config
from common.config_file import PACKAGE_PREFIX, read_toml
from common.errors import ConfigError, UsageError
from common.plan import PlanDraft
from simulations.network import Faults
from simulations.notes import NotesConfig

Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]


class FilesConfig(StrictConfig):
    """The user's own tables: CSV, JSON Lines or Parquet."""

    folder: str = Field(".", description="where the files are; a relative path starts at the scenario's own folder")
    train: Names = Field(
        min_length=1, description="files with the private rows, shared out to the hospitals by patient"
    )
    test: Names = Field(min_length=1, description="files with the public rows that the result is measured on")
    validation: Names = Field(
        (), description="files with the public rows that decide about stopping; else a part of train"
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="share of train's patients set apart for validation where there are no validation files"
    )
    columns: DataColumns = DataColumns()


class DataConfig(StrictConfig):
    """Where the rows come from: the user's files, or notes that the project writes itself."""

    files: FilesConfig | None = None
    notes: NotesConfig | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.files is None) == (self.notes is None):
            raise ValueError("give exactly one of the tables [data.files] and [data.notes]")
        return self


class HospitalsConfig(StrictConfig):
    """The virtual hospitals."""

    count: PositiveInt = Field(4, description="how many hospitals share the training data")
    skew: PositiveFloat | None = Field(
        None, description="Dirichlet concentration of the label mix (small = very different); left out: alike"
    )


class MeasureConfig(StrictConfig):
    """What the researcher looks at besides; a real coordinator could not, and nothing of it enters a message."""

    test_every_round: bool = Field(True, description="evaluate on the test set after each round, for the picture only")
    training_rows: Count = Field(0, description="watch the loss on so many private rows for overfitting; 0 means not")


class BaselineConfig(StrictConfig):
    """The non-private reference of `compare`."""

    epochs: PositiveInt = Field(3, description="passes over the pooled rows")
    batch_rows: PositiveInt = Field(32, description="rows a step")
    learning_rate: PositiveFloat = Field(1e-3, description="of AdamW on the adapter, falling in a line to 0")
    head_learning_rate: PositiveFloat = Field(5e-3, description="of AdamW on the head")


class CompareConfig(StrictConfig):
    """How `compare` makes the plans of its arms from the scenario's."""

    per_site_steps: PositiveInt = Field(
        10, description="K: local steps a round in the arm per-site, when the plan is of mode distributed"
    )


class PublicStartConfig(StrictConfig):
    """A public starting point: the base is first fine-tuned on synthetic public sentences, which costs no ε."""

    seed: Count = Field(
        1, description="public seed of sentences and order; apart from the simulation's, so that repeats share one base"
    )
    sentences: PositiveInt = Field(9600, description="synthetic case-report sentences that the base is trained on")
    epochs: PositiveInt = Field(1, description="passes over the sentences")
    batch_rows: PositiveInt = Field(64, description="sentences a step")
    learning_rate: PositiveFloat = Field(1e-4, description="of AdamW on all layers, falling in a line to 0")
    head_learning_rate: PositiveFloat = Field(5e-3, description="of AdamW on the head, which is thrown away")
    warmup_steps: Count = Field(20, description="the rates rise from 0 over so many steps")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of each target that is spread over both answers"
    )
    mention_weight: Annotated[float, Field(ge=0)] = Field(
        0.25, description="weight of telling whether a drug, an event, a condition, a symptom is mentioned at all"
    )
    map_sentences: Annotated[int, Field(ge=2)] = Field(
        3000, description="further sentences that the feature map is fitted on"
    )
    whitening_power: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.25, description="features are divided by their variance to this power: 0 leaves them, 0.5 whitens fully"
    )
    whitening_floor: PositiveFloat = Field(
        0.02, description="so many mean variances are added first, so that rare directions are not blown up"
    )
    feature_norm: PositiveFloat = Field(3.0, description="mean norm of the mapped features")


class Scenario(StrictConfig):
    """Everything a simulation needs; only `plan` would be agreed with real hospitals."""

    base: str = Field(
        description="local Hugging Face encoder folder, from the scenario's own folder on; or package:NAME/FOLDER"
    )
    base_name: str = Field("base", description="what plan, card and adapter call the base")
    seed: Count = Field(1, description="public seed of the simulation: splits, partition, faults")
    output: str = Field("runs", description="run folders are made here; a relative path starts at the working folder")
    plan: PlanDraft
    data: DataConfig
    hospitals: HospitalsConfig = HospitalsConfig()
    network: Faults = Faults()
    measure: MeasureConfig = MeasureConfig()
    baseline: BaselineConfig = BaselineConfig()
    compare: CompareConfig = CompareConfig()
    public_start: PublicStartConfig | None = None
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _hospitals_fit(self) -> Self:
        notes = self.data.notes
        if notes is not None and self.hospitals != HospitalsConfig():
            raise ValueError("[hospitals] is for [data.files]; `data.notes.hospitals` says how many write notes")
        count = self.hospitals.count if notes is None else notes.hospitals
        if self.plan.minimum_sites > count:
            raise ValueError(f"`plan.minimum_sites` must be at most the {count} hospitals, or no round can ever count")
        return self


def load_scenario(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """Read a scenario file and apply `KEY.PATH=VALUE` overrides; `KEY.PATH=` takes the key out.

    Raises:
        ConfigError: With every problem at once.
        UsageError: When an override is not of that form.
    """
    values = read_toml(path)
    for override in overrides:
        _override(values, override)
    _anchor(values, path.resolve().parent)
    return parse_config(Scenario, values, str(path))


def scenario_from_values(values: Mapping[str, Any], source: str) -> Scenario:
    """A scenario from plain values, as a run folder keeps them."""
    return parse_config(Scenario, values, source)


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise UsageError(
            f"--set must look like KEY.PATH=VALUE (found {override!r})", hint="for example --set plan.rounds=3"
        )
    table, parts = values, key.strip().split(".")
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {key}: `{part}` is a value, not a table", hint="check the key path")
    if text.strip():
        table[parts[-1]] = _toml_value(text.strip())
    else:
        table.pop(parts[-1], None)


def _toml_value(text: str) -> object:
    """The text as a TOML value; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _anchor(values: dict[str, Any], folder: Path) -> None:
    """Make the paths of base and data independent of the working folder."""
    base = values.get("base")
    if isinstance(base, str) and not base.startswith(PACKAGE_PREFIX):
        values["base"] = str((folder / Path(base).expanduser()).resolve())
    data = values.get("data")
    files = data.get("files") if isinstance(data, dict) else None
    if isinstance(files, dict) and isinstance(files.get("folder", "."), str):
        files["folder"] = str((folder / Path(files.get("folder", ".")).expanduser()).resolve())
