"""Speed settings. They stand outside the plan's digest because they may not change a guarantee."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.config import StrictConfig


class ComputeConfig(StrictConfig):
    """How fast, never how private."""

    device: Literal["cpu", "cuda"] = Field("cpu", description="where the model runs")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the frozen base; trained values stay float32"
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(0, description="CPU threads; 0 leaves the choice to torch")
    tokens_per_batch: Annotated[int, Field(ge=64)] = Field(
        1024, description="padded tokens that pass the model at once; the shapes of batches follow from it alone"
    )
