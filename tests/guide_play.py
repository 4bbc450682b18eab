"""The guides' own commands, run for real: what a reader types at each prompt, with the values that this run shows.

A guide's blocks ```console hold prompts `coordinator$` and `hospital$`, commands, and what they show. A command of a
hospital is given at each of the three (one that only looks, at north); where a command of the coordinator names `north`
alone, it is given for each of them. A block ```toml that begins with `# file: NAME` is that file's whole text.
Fingerprints and digests that the guide shows are replaced by this run's, as a reader copies them from the screen.
"""

import os
import re
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

DOCS = Path(__file__).parents[1] / "docs"
HOSPITALS = ("north", "south", "west")
ORDER = (
    ("coordinator", "What you need"),
    ("coordinator", "Make the coordinator"),
    ("hospital", "Make your site"),
    ("coordinator", "Enrol the hospitals"),
    ("hospital", "Accept the invitation"),
    ("coordinator", "Agree on a plan"),
    ("hospital", "Decide about a plan"),
    ("coordinator", "Let hospitals connect"),
    ("hospital", "Run the node"),
    ("coordinator", "Run the plan"),
    ("hospital", "See what left"),
    ("coordinator", "Take the result"),
    ("hospital", "Stop"),
)
"""Who does what after whom: headings of the two guides."""
PROMPT = re.compile(r"^(coordinator|hospital)\$ (.*)$")
BLOCK = re.compile(r"^```(console|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
FINGERPRINT = r"(?:[A-Z2-7]{4}-){5}[A-Z2-7]{4}"
DIGEST = r"\b[0-9a-f]{64}\b"
VALUE = re.compile(f"{FINGERPRINT}|{DIGEST}")
CHANGING = re.compile(rf"{FINGERPRINT}|\b[0-9a-f]{{8,}}\b…?|[\d.,:]+|/\S+")
LOOKS = re.compile(r"^cloister-site (status|budget|report|verify|plans|data|doctor)\b")
SERVICE = re.compile(r"^cloister-(coordinator|site) start\b")
FOLDED = " " * 12


@dataclass(frozen=True)
class Command:
    """A line that somebody types, and what the guide shows below it."""

    party: str
    line: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """A file that somebody writes."""

    name: str
    text: str


Step = Command | Settings


def read_guide(path: Path) -> dict[str, list[Step]]:
    """The steps below each heading of a guide that has any."""
    text = path.read_text(encoding="utf-8")
    titles = HEADING.findall(text)
    found = {title: list(_steps(part)) for title, part in zip(titles, HEADING.split(text)[2::2], strict=True)}
    return {title: steps for title, steps in found.items() if steps}


def steps_until(heading: str | None = None) -> list[Step]:
    """All steps of both guides in order, up to and with those below a heading."""
    guides = {party: read_guide(DOCS / f"{party}-guide.md") for party in ("coordinator", "hospital")}
    last = next((number for number, (_, title) in enumerate(ORDER) if title == heading), len(ORDER) - 1)
    return [step for party, title in ORDER[: last + 1] for step in guides[party][title]]


def free_ports() -> tuple[int, int]:
    """Two ports of loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _steps(part: str) -> Iterable[Step]:
    for kind, body in BLOCK.findall(part):
        first, _, rest = body.partition("\n")
        if kind == "console":
            yield from _commands(body.splitlines())
        elif first.startswith("# file: "):
            yield Settings(first.removeprefix("# file: "), rest)


def _commands(lines: Sequence[str]) -> Iterable[Command]:
    starts = [number for number, line in enumerate(lines) if PROMPT.match(line)]
    assert starts[:1] == [0], "a console block begins with a prompt"
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        party, line = PROMPT.match(lines[start]).groups()
        yield Command(party, line, tuple(line for line in lines[start + 1 : end] if line.strip()))


def beginning(line: str) -> tuple[str, ...]:
    """What a line shows in every run: its first two words, without numbers, digests, fingerprints and paths."""
    return tuple(CHANGING.sub("#", line).split()[:2])


def differences(shown: Sequence[str], actual: str, values: dict[str, str]) -> list[str]:
    """Lines that a guide shows and a command did not; learns which value of this run stands for which of the guide.

    Hospitals answer in any order, so that lines may come in any, too.
    """
    lines, missing = actual.splitlines(), []
    for wanted in shown:
        if wanted.strip() == "…" or wanted.startswith(FOLDED):
            continue
        found = next((line for line in lines if beginning(line) == beginning(wanted)), None)
        if found is None:
            missing.append(wanted)
        else:
            values |= dict(zip(VALUE.findall(wanted), VALUE.findall(found), strict=False))
    return missing


@dataclass
class Play:
    """A coordinator and three hospitals in one folder, each with its own environment.

    Args:
        folder: Where it all happens.
        ports: The gateway's and the SuperLink's.
        base: Takes the place of the guide's base model.
    """

    folder: Path
    ports: tuple[int, int]
    base: Path | None
    values: dict[str, dict[str, str]] = field(default_factory=lambda: {name: {} for name in ("", *HOSPITALS)})
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    services: dict[str, subprocess.Popen] = field(default_factory=dict)
    transcript: list[tuple[Command, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLOISTER_", "PYTEST_"))}
        path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
        quiet = {"PATH": path, "NO_COLOR": "1", "COLUMNS": "110", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        for party in ("coordinator", *HOSPITALS):
            self.environments[party] = {**kept, **quiet, "HOME": str(self.folder)}

    def __enter__(self) -> "Play":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in [*self.services.values()][::-1]:  # the coordinator began first, and goes last
            end(process)

    def nodes(self) -> list[int]:
        """Processes of the hospitals' nodes, and what they started."""
        own = [process.pid for party, process in list(self.services.items()) if party != "coordinator"]
        return [*own, *(child for node in own for child in children(node))]

    def play(self, steps: Iterable[Step]) -> None:
        """Do what a part of a guide says; the first line that does not show up is a failed test."""
        for step in steps:
            if isinstance(step, Settings):
                self.write(step)
            elif step.party == "coordinator":
                self._coordinate(step)
            else:
                self._at_hospitals(step)

    def write(self, step: Settings) -> None:
        """Write a file as the guide shows it; the base model and the SuperLink's port are this run's."""
        text = step.text.replace("[listen]\n", f"[listen]\nsuperlink_port = {self.ports[1]}\n")
        if self.base is not None:
            text = re.sub(r'^base = ".*"', f'base = "{self.base}"', text, flags=re.MULTILINE)
        (self.folder / step.name).write_text(self._here(text, {}), encoding="utf-8")

    def _coordinate(self, step: Command) -> None:
        named = [name for name in HOSPITALS if re.search(rf"\b{name}\b", step.line)]
        for hospital in HOSPITALS if named == ["north"] else ("",):
            known = {**self.values[""], **self.values[hospital]}
            self._do("coordinator", step, hospital, known)
            self.values[""] |= {} if hospital else known

    def _at_hospitals(self, step: Command) -> None:
        chosen = HOSPITALS[:1] if LOOKS.match(step.line) else HOSPITALS
        with ThreadPoolExecutor(len(chosen)) as pool:
            list(pool.map(lambda name: self._do(name, step, name, self.values[name] | self.values[""]), chosen))

    def _do(self, party: str, step: Command, hospital: str, known: dict[str, str]) -> None:
        line = self._here(step.line, known)
        line = re.sub(r"\bnorth\b", hospital, line) if hospital else line
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.environments[party][name] = value.replace("$PWD", str(self.folder))
            return
        actual = self._serve(party, line, step.shown) if SERVICE.match(line) else self.call(party, line)
        shown = [re.sub(r"\bnorth\b", hospital, text) if hospital else text for text in step.shown]
        assert differences(shown, actual, known) == [], f"{party}$ {line}\n{actual}"
        self.values[hospital] |= known
        if hospital in ("", "north"):
            self.transcript.append((step, actual))

    def call(self, party: str, line: str, code: int = 0, seconds: float = 300.0) -> str:
        """Run one command of a party to its end; what it showed, errors and all."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environments[party],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == code, f"{party}$ {line}\n{done.stdout}"
        return done.stdout

    def _serve(self, party: str, line: str, shown: Sequence[str]) -> str:
        """Start what runs until it is stopped, and wait until it has shown what the guide shows."""
        self.services[party] = self.start(party, line)
        text = ""
        for _ in range(600):
            text = self.log(party).read_text(encoding="utf-8")
            if self.services[party].poll() is not None or not differences(shown, text, {}):
                break
            time.sleep(0.1)
        return text

    def start(self, party: str, line: str) -> subprocess.Popen:
        """Start a party's command in a process of its own, with its output in `log`."""
        with self.log(party).open("ab") as log:
            return subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=self.folder,
                env=self.environments[party],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def log(self, party: str) -> Path:
        """What a party's service has shown."""
        return self.folder / f"{party}.log"

    def _here(self, text: str, known: Mapping[str, str]) -> str:
        """A text of the guide with the values of this run."""
        return VALUE.sub(lambda match: known.get(match[0], match[0]), text).replace(":9443", f":{self.ports[0]}")


def end(process: subprocess.Popen) -> None:
    """End a service in order; by force, and all that it started, where it does not end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            for child in [*children(process.pid), process.pid]:
                os.kill(child, signal.SIGKILL)
            process.wait()


def children(process: int) -> list[int]:
    """Processes that a process started, and those that they did."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # gone meanwhile
            continue
        if parent == process:
            found += [int(stat.parent.name), *children(int(stat.parent.name))]
    return found
