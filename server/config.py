"""coordinator.toml: addresses, waiting times, bounds. Nothing about privacy: that is the plan's, and the hospitals'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from common.address import AddressText, parse_address
from common.compute import ComputeConfig
from common.config import Names, StrictConfig, parse_config
from common.config_file import anchor_path, read_toml
from common.enrolment import FederationName
from common.errors import ConfigError
from common.plan import PositiveFloat, PositiveInt
from server.gateway.limits import GatewayLimits

Port = Annotated[int, Field(ge=1, le=65535)]


class ListenConfig(StrictConfig):
    """Where this machine listens: the gateway for hospitals, the SuperLink for the gateway alone."""

    host: str = Field("0.0.0.0", min_length=1, description="the gateway's own address; 0.0.0.0: all of this machine's")  # noqa: S104 - hospitals come from outside
    port: Port | None = Field(
        None, description="the gateway's port; left out: that of `address`, which may differ behind a port forwarding"
    )
    superlink_port: Port = Field(9092, description="port of the SuperLink, on loopback only")


class WaitingConfig(StrictConfig):
    """How long the coordinator waits, and how often it looks."""

    answer_seconds: PositiveFloat = Field(600.0, description="for the sites' answers to one order; then they are late")
    exchange_seconds: PositiveFloat = Field(
        60.0, description="for answers that need no training: keys, shares, consents, a chunk asked for"
    )
    gathering_seconds: PositiveFloat = Field(
        86400.0, description="before the first round, for enough sites to be there, approve the plan and get the base"
    )
    late_seconds: PositiveFloat = Field(
        5.0, description="once enough sites have answered, the others have as long again, and so long at least"
    )
    least_poll_seconds: PositiveFloat = Field(0.02, description="wait between two looks for answers")
    most_poll_seconds: PositiveFloat = Field(0.5, description="longest such wait, when there has been nothing a while")
    superlink_start_seconds: PositiveFloat = Field(60.0, description="for the SuperLink to be ready")
    superlink_restarts: PositiveInt = Field(5, description="restarts of a SuperLink that ended, within ten minutes")

    @model_validator(mode="after")
    def _polls_fit(self) -> Self:
        if self.least_poll_seconds > self.most_poll_seconds:
            raise ValueError("`least_poll_seconds` must be at most `most_poll_seconds`")
        return self


class PublicColumns(StrictConfig):
    """What the columns of the public files are called."""

    text: str = Field("text", min_length=1, description="the text to classify")
    label: str = Field("label", min_length=1, description="one of the plan's labels")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.text == self.label:
            raise ValueError("`text` and `label` must be two different columns")
        return self


class PublicDataConfig(StrictConfig):
    """Public records that the global model is judged on: CSV, JSON Lines or Parquet. No hospital's are here."""

    folder: str = Field(".", description="where the files are; a relative path starts at coordinator.toml's folder")
    validation: Names = Field((), description="files that decide about stopping; none: the run has all its rounds")
    test: Names = Field((), description="files that the result is measured on; none: the card has no figures")
    columns: PublicColumns = PublicColumns()

    @property
    def validation_files(self) -> tuple[Path, ...]:
        """The files that decide about stopping."""
        return tuple(Path(self.folder) / name for name in self.validation)

    @property
    def test_files(self) -> tuple[Path, ...]:
        """The files that the result is measured on."""
        return tuple(Path(self.folder) / name for name in self.test)


class CoordinatorConfig(StrictConfig):
    """Everything that a coordinator sets apart from its plans."""

    name: FederationName = Field(description="name of the federation, as invitations show it")
    address: AddressText = Field(description="HOST:PORT that hospitals reach; it stands in the server certificate")
    base: str | None = Field(
        None, description="the plans' base: a local Hugging Face encoder folder, or package:NAME/FOLDER"
    )
    base_name: str = Field("base", min_length=1, description="what plan, card and adapter call the base")
    plan_validity_days: Annotated[int, Field(ge=1, le=3650)] = Field(90, description="so long a plan is signed for")
    listen: ListenConfig = ListenConfig()
    waiting: WaitingConfig = WaitingConfig()
    gateway: GatewayLimits = GatewayLimits()
    public: PublicDataConfig = PublicDataConfig()
    compute: ComputeConfig = ComputeConfig()

    @property
    def gateway_port(self) -> int:
        """The port that the gateway listens on."""
        return self.listen.port or parse_address(self.address).port

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.gateway_port == self.listen.superlink_port:
            raise ValueError("`listen.superlink_port` must not be the gateway's port")
        return self


def load_coordinator_config(path: Path) -> CoordinatorConfig:
    """Read coordinator.toml; relative paths in it become absolute, from its own folder on.

    Raises:
        ConfigError: With every problem at once.
    """
    if not path.exists():
        raise ConfigError(f"there is no {path}", hint="make the coordinator's folder with `cloister-coordinator init`")
    values = read_toml(path)
    folder = path.resolve().parent
    anchor_path(values, "base", folder)
    anchor_path(values.get("public"), "folder", folder, ".")
    return parse_config(CoordinatorConfig, values, str(path))
