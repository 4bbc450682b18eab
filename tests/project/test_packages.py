import importlib
from pathlib import Path

import pytest

PACKAGES = ("common", "client", "server", "simulations")


@pytest.mark.parametrize("name", PACKAGES)
def test_top_level_names_are_ours(name: str, root: Path) -> None:
    """The names are plain words; another distribution in the environment must not shadow them."""
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).resolve() == root / name / "__init__.py"


@pytest.mark.parametrize("name", PACKAGES)
def test_every_folder_is_a_package_with_one_line_and_no_code(name: str, root: Path) -> None:
    folders = {path.parent for path in (root / name).rglob("*.py")}
    for folder in sorted(folders):
        lines = (folder / "__init__.py").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1, f"{folder.relative_to(root)}/__init__.py holds more than a docstring"
        assert lines[0].startswith('"""')


def test_tests_are_no_packages(root: Path) -> None:
    """Otherwise tests/common would hide common."""
    assert not list((root / "tests").rglob("__init__.py"))
