from pathlib import Path

import pytest

PACKAGES = ("common", "client", "server", "simulations")

# Modules without a test of the same name, each with where it is tested instead.
TESTED_ELSEWHERE = {
    "common/transport.py": "tests/simulations/test_network.py",  # one protocol, no code
    "client/refusals.py": "tests/client/test_secagg.py",  # two errors
    "client/limits.py": "tests/client/test_policy.py",  # one config class, asked through the policy
    "common/plan_rules.py": "tests/common/test_plan.py",  # one list of sentences, asked through the plan
    "common/records/tables.py": "tests/common/records/test_sources.py",  # the file formats of that reader
    "server/run_files.py": "tests/server/test_runs.py",  # names of files, no code
    "server/gather.py": "tests/server/test_round.py",  # one record and one protocol, no code
    "simulations/notes_grammar.py": "tests/simulations/test_notes.py",  # phrases, no code
}


def modules(root: Path) -> list[str]:
    """Paths of all modules below the packages, as `common/wire.py`."""
    files = (path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return sorted(path.relative_to(root).as_posix() for path in files if path.name != "__init__.py")


def twin(module: str) -> str:
    folder, _, name = module.rpartition("/")
    return f"tests/{folder}/test_{name}"


def test_every_module_has_a_test_of_the_same_name(root: Path) -> None:
    untested = [module for module in modules(root) if not (root / twin(module)).is_file()]
    assert sorted(set(untested) - set(TESTED_ELSEWHERE)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_test_has_a_module_of_the_same_name(package: str, root: Path) -> None:
    known = {twin(module) for module in modules(root)}
    tests = {path.relative_to(root).as_posix() for path in (root / "tests" / package).rglob("test_*.py")}
    # One suite that every implementation of an interface passes stands beside them; and the protocol on one page.
    tests = {test for test in tests if not test.endswith(("/test_contract.py", "/test_protocol.py"))}
    assert sorted(tests - known) == [], "tests of several modules belong in tests/end_to_end or tests/privacy"


def test_exceptions_are_still_needed(root: Path) -> None:
    for module, elsewhere in TESTED_ELSEWHERE.items():
        assert (root / module).is_file()
        assert not (root / twin(module)).is_file()
        assert (root / elsewhere).is_file()
