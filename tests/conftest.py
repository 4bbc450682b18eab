"""What every test run needs: no hub, no pool of threads per process."""

import os

# Before transformers is imported: a test that would fetch something fails at once instead of trying.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Before torch and NumPy are imported: make starts one process per core, and each must keep to its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
