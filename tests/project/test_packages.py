import importlib
import tomllib
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


@pytest.mark.parametrize("name", PACKAGES)
def test_every_file_of_a_package_is_installed_with_it(name: str, root: Path, tracked: list[Path]) -> None:
    """A template or scenario that package-data forgets is there in a checkout and missing in a wheel."""
    patterns = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "package-data"
    ]
    installed = {path for pattern in patterns.get(name, ()) for path in (root / name).glob(pattern)}
    data = {path for path in tracked if path.is_relative_to(root / name) and path.suffix != ".py"}
    assert data - installed == set()
