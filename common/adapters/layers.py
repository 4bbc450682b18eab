"""Where an encoder's layers are, whatever the architecture calls them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from common.errors import ConfigError
from common.plan import AdapterConfig


@dataclass(frozen=True)
class LayerStack:
    """The list of an encoder's layers and its dotted path, such as `encoder.layer`."""

    path: str
    layers: nn.ModuleList

    @property
    def pattern(self) -> str:
        """The last part of the path, by which PEFT finds layer numbers."""
        return self.path.rsplit(".", 1)[-1]

    def index_of(self, name: str) -> int | None:
        """Layer number of a parameter, or None when it lies outside the stack."""
        if not name.startswith(f"{self.path}."):
            return None
        return int(name.removeprefix(f"{self.path}.").split(".", 1)[0])


def layer_stack(encoder: nn.Module) -> LayerStack:
    """Find the encoder's stack: the module list with as many entries as its config says it has layers.

    Raises:
        ConfigError: When there is none, so that adapters could not be placed by layer.
    """
    count = getattr(encoder.config, "num_hidden_layers", None)
    for path, module in encoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return LayerStack(path, module)
    raise ConfigError(
        "the base model has no stack of layers that Cloister knows", hint="use an encoder such as BERT or RoBERTa"
    )


def check_pooled(encoder: nn.Module, pool_layers: int) -> None:
    """Refuse to pool more layers than there are.

    Raises:
        ConfigError: When the plan wants more than the base has.
    """
    count = len(layer_stack(encoder).layers)
    if pool_layers > count:
        raise ConfigError(
            f"task.pool_layers must be at most the base's {count} layers (found {pool_layers})",
            hint="1 pools the last layer alone",
        )


def adapted_layers(encoder: nn.Module, adapter: AdapterConfig) -> range:
    """Numbers of the layers that carry adapters.

    Raises:
        ConfigError: When the plan wants more layers than there are.
    """
    count = len(layer_stack(encoder).layers)
    if adapter.top_layers > count:
        raise ConfigError(
            f"adapter.top_layers must be at most the base's {count} layers (found {adapter.top_layers})",
            hint="0 means all layers",
        )
    return range(count - adapter.top_layers if adapter.top_layers else 0, count)
