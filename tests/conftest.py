"""What every test run needs: no hub, no pool of threads per process, no stop-watch, one tiny base model."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

# Before transformers is imported: a test that would fetch something fails at once instead of trying.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Before torch and NumPy are imported: make starts one process per core, and each must keep to its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

# Two busy cores make a deadline a matter of luck; and on CI the same code must give the same examples.
settings.register_profile("cloister", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("cloister")


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command sets the log to its own stderr, which is closed when its test is over."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a base model of three layers, width 16."""
    from tests.tiny_base import make_tiny_base  # loads torch, which most tests do without

    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")
