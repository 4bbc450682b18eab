import json
import shutil
from pathlib import Path

import pytest
import torch

from common.base_model import DTYPES, load_base, torch_dtype
from common.compute import ComputeConfig
from common.errors import ConfigError, IntegrityError


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def test_a_loaded_base_is_frozen_and_has_no_dropout(tiny_base: Path) -> None:
    base = load_base(tiny_base, "tiny", ComputeConfig())
    assert not any(parameter.requires_grad for parameter in base.encoder.parameters())
    rates = [module.p for module in base.encoder.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates
    assert set(rates) == {0.0}
    assert base.hidden_size == 16


def test_loading_twice_gives_the_same_outputs(tiny_base: Path) -> None:
    ids = torch.tensor([[2, 5, 6, 3]])
    one, two = (load_base(tiny_base, "tiny", ComputeConfig()).encoder(input_ids=ids)[0] for _ in range(2))
    assert torch.equal(one, two)


def test_the_dtype_is_the_one_asked_for(tiny_base: Path) -> None:
    base = load_base(tiny_base, "tiny", ComputeConfig(dtype="bfloat16"))
    assert {parameter.dtype for parameter in base.encoder.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("size", [0, 7, 500])
def test_damaged_weights_are_an_integrity_error(size: int, folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:size])
    with pytest.raises(IntegrityError, match="are damaged"):
        load_base(folder, "tiny", ComputeConfig())


def test_an_unknown_architecture_and_its_code_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "nobody-knows", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('code of the folder was run')\n")
    with pytest.raises(ConfigError, match="not on the list"):
        load_base(folder, "tiny", ComputeConfig())


def test_every_number_format_that_a_config_may_name_is_known() -> None:
    choices = ComputeConfig.model_json_schema()["properties"]["dtype"]["enum"]
    assert set(choices) == set(DTYPES)
    assert torch_dtype(ComputeConfig(dtype="bfloat16")) == torch.bfloat16
