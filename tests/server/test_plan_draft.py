import subprocess
import sys

import pytest

from common.errors import ConfigError
from server.plan_draft import read_draft


def test_a_draft_that_is_no_plan_is_a_config_error(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text("rounds = [")
    with pytest.raises(ConfigError, match="not TOML"):
        read_draft(path)


def test_a_draft_is_read_and_a_check_begun_without_torch():
    asks = "import sys, server.commands.plans, server.plan_draft, server.plan_check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asks], check=False).returncode == 0
