"""`cloister-simulate`, as it is installed; apart from `simulations.cli`, which takes long to import."""

from __future__ import annotations

from common.entry import interrupts_leave


def main() -> None:
    """Import the command, which an interrupt may end, and give it."""
    with interrupts_leave():
        from simulations.cli import main as command
    command()


if __name__ == "__main__":
    main()
