"""A record that makes the base fail adds nothing, and changes nothing else.

A base is the coordinator's. One that fails on a text of its choice would tell whether that text is here, if a failure
were an answer of its own: a refusal, a silence, a node that ends. So a failure is taken row by row, and never leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from common.features import Batch


def is_failure(error: BaseException) -> bool:
    """Whether an error is a library's own, rather than somebody's wish to stop.

    A panic of compiled code comes as a `BaseException` whose class cannot be imported, so it is known by its name.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def surviving(batch: Batch, compute: Callable[[Batch], torch.Tensor]) -> Iterator[tuple[Batch, torch.Tensor]]:
    """The batch with what it computes to; where that fails, each of its rows alone that does not fail.

    Guarantees:
        A row gives the same bits either way, since alone it stands at its own place in a batch of the same shape
        (`Features.batches`); so a row that fails changes nothing about the others.

    Edge cases: Where every row fails, nothing is given.
    """
    try:
        whole = compute(batch)
    except BaseException as error:
        if not is_failure(error):
            raise
    else:
        yield batch, whole
        return
    for index in range(len(batch.rows)):
        alone = batch.alone(index)
        try:
            part = compute(alone)
        except BaseException as error:
            if not is_failure(error):
                raise
        else:
            yield alone, part
