import re
from pathlib import Path

MAX_CODE_LINES = 300
MAX_LINES = 400

# A machine's own folders have no place in a project that runs on every machine; /home/someone is nobody's.
MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:work|root|home|opt|mnt|srv|Users)/(?!someone\b)")
ADDRESS = re.compile(r"https?://([^/\s\"'<>)`\]]+)")
# Who may be linked to: licences, standards and papers; no registry, mirror or host of anyone's workplace.
KNOWN_HOSTS = {
    "arxiv.org",
    "doi.org",
    "eprint.iacr.org",
    "keepachangelog.com",
    "openreview.net",
    "proceedings.mlr.press",
    "semver.org",
    "www.apache.org",
}
TEXT = {
    ".cfg",
    ".css",
    ".csv",
    ".html",
    ".j2",
    ".json",
    ".md",
    ".py",
    ".sh",
    ".svg",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
    "",
}


def texts(files: list[Path]) -> list[tuple[Path, str]]:
    return [(path, path.read_text(encoding="utf-8")) for path in files if path.suffix in TEXT]


def test_the_patterns_bite() -> None:
    assert MACHINE_PATH.search("see /" + "home/ci/data")
    assert not MACHINE_PATH.search("see /" + "home/someone/data")
    assert not MACHINE_PATH.search("../" + "work/data and framework/opt/in")
    assert ADDRESS.findall("at http://" + "mirror.local:81/simple now") == ["mirror.local:81"]


def test_no_path_of_a_machine(tracked: list[Path], root: Path) -> None:
    found = {str(path.relative_to(root)): MACHINE_PATH.findall(text) for path, text in texts(tracked)}
    assert {name for name, hits in found.items() if hits} == set()


def test_links_lead_to_known_hosts(tracked: list[Path], root: Path) -> None:
    found = {(str(path.relative_to(root)), host) for path, text in texts(tracked) for host in ADDRESS.findall(text)}
    assert {(name, host) for name, host in found if host not in KNOWN_HOSTS and not is_made_up(host)} == set()


def is_made_up(host: str) -> bool:
    """A variable, a word for any host, or a name that is kept for examples (RFC 2606)."""
    name = host.rpartition("@")[2].partition(":")[0].rstrip(",")
    return host.startswith("{") or name == "HOST" or name.endswith((".example", "example.org", "example.com"))


def test_files_stay_short(tracked: list[Path], root: Path) -> None:
    code = [path for path in tracked if path.suffix == ".py"]
    lines = {str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in code}
    limit = {name: MAX_LINES if name.startswith("tests/") else MAX_CODE_LINES for name in lines}
    assert {name: count for name, count in lines.items() if count > limit[name]} == {}


def test_no_drawers_for_anything(tracked: list[Path], root: Path) -> None:
    names = {
        str(path.relative_to(root)) for path in tracked if path.name in {"utils.py", "util.py", "helpers.py", "misc.py"}
    }
    assert names == set()
