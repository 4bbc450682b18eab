import torch

from common.compute import DTYPES, ComputeConfig


def test_every_dtype_that_may_be_named_is_known() -> None:
    choices = ComputeConfig.model_json_schema()["properties"]["dtype"]["enum"]
    assert set(choices) == set(DTYPES)


def test_the_default_is_single_precision_on_the_processor() -> None:
    assert ComputeConfig().torch_dtype == torch.float32
    assert ComputeConfig().device == "cpu"
    assert ComputeConfig(dtype="bfloat16").torch_dtype == torch.bfloat16
