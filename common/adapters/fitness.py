"""Can this architecture be fine-tuned under this plan? Answered before any record is read."""

from __future__ import annotations

from collections.abc import Iterator

from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.adapters.layers import adapted_layers, layer_stack
from common.adapters.lora import missing_targets
from common.errors import ConfigError, Problem
from common.findings import Finding
from common.plan import AdapterConfig


def check_architecture(encoder: nn.Module, adapter: AdapterConfig) -> tuple[Finding, ...]:
    """Findings about an encoder that has no adapter yet: layers, targets, layers that mix records."""
    try:
        layers = adapted_layers(encoder, adapter)
    except ConfigError as error:
        return (Finding("fail", "layers", error.message, error.hint),)
    found = [_layers(layers, len(layer_stack(encoder).layers))]
    found += [
        Finding("fail", str(problem.where), problem.rule, problem.hint) for problem in missing_targets(encoder, adapter)
    ]
    found += list(_mixing_layers(encoder))
    return tuple(found)


def refuse_unfit_architecture(encoder: nn.Module, adapter: AdapterConfig) -> None:
    """Stop a site before it trains what a coordinator's check would have refused.

    Raises:
        ConfigError: With one problem a failed finding.
    """
    failed = [finding for finding in check_architecture(encoder, adapter) if finding.level == "fail"]
    if failed:
        problems = tuple(Problem(finding.subject, finding.sentence, hint=finding.mend) for finding in failed)
        raise ConfigError(f"the plan does not fit its base model: {failed[0].sentence}", problems, failed[0].mend)


def _layers(layers: range, count: int) -> Finding:
    return Finding(
        "pass",
        "layers",
        f"adapters sit in {len(layers)} of {count} layers; outputs of the {layers.start} below are computed once",
    )


def _mixing_layers(encoder: nn.Module) -> Iterator[Finding]:
    mixing = [name for name, module in encoder.named_modules() if isinstance(module, _BatchNorm)]
    if mixing:
        yield Finding(
            "fail",
            "batch norm",
            f"{len(mixing)} layers mix the records of a batch, so one record's gradient cannot be told apart",
            "use a base with layer norm or group norm",
        )
    else:
        yield Finding("pass", "batch norm", "no layer mixes the records of a batch")


def check_trained(module: nn.Module, dimension: int, *, prefix_is_cached: bool) -> tuple[Finding, ...]:
    """Findings about a model with its adapter: per-sample rules of the trained layers, sizes, whether the cut is exact.

    Args:
        module: The classifier, trained tensors marked.
        dimension: d, trained values.
        prefix_is_cached: Whether the frozen layers' outputs are kept.
    """
    without = sorted(_without_rule(module))
    rule = (
        Finding(
            "fail",
            "per-sample gradients",
            f"no per-sample rule for {', '.join(without)}",
            "leave these layers untrained",
        )
        if without
        else Finding("pass", "per-sample gradients", "every trained layer has a per-sample rule")
    )
    size = Finding("pass", "trained values", f"{dimension:,} values, {4 * dimension:,} bytes a message")
    return rule, size, _cut(prefix_is_cached)


def _cut(prefix_is_cached: bool) -> Finding:
    if prefix_is_cached:
        return Finding("pass", "frozen layers", "their outputs are kept (checked: the cut model computes the same)")
    return Finding(
        "warn", "frozen layers", "nothing is kept, each step runs the whole base", "set adapter.top_layers for speed"
    )


def _without_rule(classifier: nn.Module) -> set[str]:
    known = GradSampleModule.GRAD_SAMPLERS
    trained = [
        type(module)
        for module in classifier.modules()
        if any(tensor.requires_grad for tensor in module.parameters(recurse=False))
    ]
    return {kind.__name__ for kind in trained if kind not in known}
