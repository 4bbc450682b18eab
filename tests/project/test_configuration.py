from pathlib import Path

from simulations.config_docs import CHAPTERS, render


def test_the_page_says_what_the_classes_say(root: Path) -> None:
    page = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == render(CHAPTERS), "run `make docs` and commit docs/configuration.md"
