"""A command that is interrupted while it is still being imported."""

from __future__ import annotations

import signal
import subprocess
import sys

_SLOW = """
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {slow!r}:
            print("importing", flush=True)
            time.sleep(30)

sys.meta_path.insert(0, Slow())
from {entry} import main
main()
"""


def interrupted_while_importing(entry: str, slow: str) -> subprocess.CompletedProcess[str]:
    """What is left of a process whose command `entry` was interrupted at the import of module `slow`."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW.format(entry=entry, slow=slow)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def loaded_by(module: str) -> set[str]:
    """Every module that is there once one was imported by itself."""
    code = f"import sys, {module}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
