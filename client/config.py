"""site.toml: a hospital's own settings. Never sent, and nothing that a coordinator sends can change them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from client.limits import SitePolicy
from common.address import AddressText
from common.columns import DataColumns
from common.compute import ComputeConfig
from common.config import Names, StrictConfig, parse_config
from common.config_file import anchor_path, read_toml
from common.enrolment import EnrolledName
from common.errors import ConfigError
from common.plan import PositiveFloat, Unit

Order = Annotated[int, Field(ge=2, le=1024)]
DataSetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class SiteDataConfig(StrictConfig):
    """This hospital's records: CSV, JSON Lines or Parquet."""

    dataset: DataSetName = Field(
        "records",
        description=(
            "what the ledger calls these records, for good once something was charged; other patients' records need a "
            "site folder of their own, and what two folders spend on the same patients adds up: split their budget"
        ),
    )
    folder: str = Field(".", description="where the files are; a relative path starts at site.toml's own folder")
    train: Names = Field(min_length=1, description="files with the private rows")
    columns: DataColumns = DataColumns()


class UnitBudget(StrictConfig):
    """What all runs together may cost one unit."""

    epsilon: PositiveFloat = Field(10.0, description="most ε in total, across runs and coordinators")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(1e-5, description="δ in total")
    order: Order | None = Field(
        None, description="Rényi order of the ledger's book, fixed with the budget; left out: chosen from ε and δ"
    )


class BudgetConfig(StrictConfig):
    """The privacy budget of the data set, for each unit that plans may protect; the ledger enforces it."""

    patient: UnitBudget | None = UnitBudget()
    record: UnitBudget | None = None

    def of(self, unit: Unit) -> UnitBudget | None:
        """The budget of a unit; None where the hospital has set none, so that nothing may be spent."""
        return dict(self.by_unit()).get(unit)

    def by_unit(self) -> tuple[tuple[Unit, UnitBudget], ...]:
        """The budgets that the hospital has set."""
        budgets: tuple[tuple[Unit, UnitBudget | None], ...] = (("patient", self.patient), ("record", self.record))
        return tuple((unit, budget) for unit, budget in budgets if budget is not None)


class BaseConfig(StrictConfig):
    """Where pretrained base models come from; a plan names one by the SHA-256 of each of its files."""

    local: Names = Field(
        (), description="folders with base models that this hospital's people have put there; or package:NAME/FOLDER"
    )
    limit_bytes: Annotated[int, Field(ge=1)] = Field(
        16 * 2**30, description="all bases that the coordinator has sent may take so much of the disk"
    )


class NetworkConfig(StrictConfig):
    """The way out to the coordinator. A site opens connections, and never listens."""

    proxy: AddressText | None = Field(
        None, description="HTTP proxy as HOST:PORT; left out: as the variables HTTPS_PROXY and NO_PROXY say"
    )
    extra_ca_file: str | None = Field(
        None, description="PEM file of a further CA, where this hospital's proxy opens TLS; from site.toml's folder on"
    )
    least_poll_seconds: PositiveFloat = Field(0.03, description="wait between two looks for work while rounds run")
    most_poll_seconds: PositiveFloat = Field(1.0, description="longest wait, when there has been nothing for a while")
    most_reconnect_seconds: PositiveFloat = Field(5.0, description="longest wait before the next try to connect")
    timeout_seconds: PositiveFloat = Field(30.0, description="for each wait on the network")

    @model_validator(mode="after")
    def _polls_fit(self) -> Self:
        if self.least_poll_seconds > self.most_poll_seconds:
            raise ValueError("`least_poll_seconds` must be at most `most_poll_seconds`")
        return self


class SiteConfig(StrictConfig):
    """Everything that a hospital sets."""

    name: EnrolledName = Field(description="this site's name in plans and rosters")
    data: SiteDataConfig
    policy: SitePolicy = SitePolicy()
    budget: BudgetConfig = BudgetConfig()
    base: BaseConfig = BaseConfig()
    compute: ComputeConfig = ComputeConfig()
    network: NetworkConfig = NetworkConfig()

    @model_validator(mode="after")
    def _units_have_budgets(self) -> Self:
        missing = [unit for unit in self.policy.units if self.budget.of(unit) is None]
        if missing:
            raise ValueError(f"`policy.units` allows {missing[0]}, which needs a table [budget.{missing[0]}]")
        return self

    @property
    def train_files(self) -> tuple[Path, ...]:
        """The files with the private rows."""
        return tuple(Path(self.data.folder) / name for name in self.data.train)


def load_site_config(path: Path) -> SiteConfig:
    """Read site.toml; relative paths in it become absolute, from its own folder on.

    Raises:
        ConfigError: With every problem at once.
    """
    if not path.exists():
        raise ConfigError(f"there is no {path}", hint="make this site's folder with `cloister-site init`")
    values = read_toml(path)
    folder = path.resolve().parent
    anchor_path(values.get("data"), "folder", folder, ".")
    anchor_path(values.get("base"), "local", folder)
    anchor_path(values.get("network"), "extra_ca_file", folder)
    return parse_config(SiteConfig, values, str(path))
