import subprocess
import sys

from common.compute import ComputeConfig


def test_the_default_is_single_precision_on_the_processor() -> None:
    assert ComputeConfig().dtype == "float32"
    assert ComputeConfig().device == "cpu"


def test_torch_is_not_loaded_for_reading_a_config() -> None:
    code = "import common.compute, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
