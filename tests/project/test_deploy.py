"""The files that run Cloister as a service: they parse, keep what the guide says of them, and name what exists."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from client.cli import app as site_app
from server.cli import app as coordinator_app

APPS = {"cloister-site": site_app, "cloister-coordinator": coordinator_app}
COMMAND = re.compile(
    r"(cloister-site|cloister-coordinator)[\s,]+((?:--)?[a-z][a-z-]*(?:[\s,]+(?:--[a-z-]+|[A-Z]+|[a-z]+\b))*)"
)
SYSTEMD = shutil.which("systemd-analyze")
NEVER_AGAIN = {"13", "14"}
SECURITY = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ReadWritePaths": "/var/lib/cloister",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "CapabilityBoundingSet": "",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "SocketBindDeny": "any",
    "UMask": "0077",
    "KillSignal": "SIGTERM",
    "TimeoutStopSec": "10",
    "Restart": "on-failure",
}


@pytest.fixture(scope="module")
def deploy(root: Path) -> Path:
    return root / "docs" / "deploy"


@pytest.fixture(scope="module")
def texts(root: Path, deploy: Path) -> dict[str, str]:
    pages = [*deploy.iterdir(), root / "docs" / "offline-install.md"]
    return {path.name: path.read_text(encoding="utf-8") for path in pages}


def unit(path: Path) -> configparser.SectionProxy:
    """The [Service] section; of a key that stands twice, the last."""
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign] # systemd's keys have capitals
    parser.read(path, encoding="utf-8")
    return parser["Service"]


def unknown(command: str, words: list[str]) -> list[str]:
    """What of a command line does not exist: subcommands first, then options; words in capitals stand for values."""
    place: click.Command = typer.main.get_command(APPS[command])
    while words and not words[0].startswith("--") and isinstance(place, click.Group):
        if words[0] not in place.commands:
            return [f"{command} {words[0]}"]
        place = place.commands[words.pop(0)]
    known = {name for parameter in place.params for name in parameter.opts} | {"--help"}
    return [f"{command} {place.name} {word}" for word in words if word.startswith("--") and word not in known]


def commands(text: str) -> list[tuple[str, list[str]]]:
    return [(command, re.split(r"[\s,]+", words)) for command, words in COMMAND.findall(text)]


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_pattern_bites() -> None:
    assert commands("`cloister-site start --json-logs`") == [("cloister-site", ["start", "--json-logs"])]
    assert commands("command: [cloister-coordinator, start]") == [("cloister-coordinator", ["start"])]
    assert unknown("cloister-site", ["begin"]) == ["cloister-site begin"]
    assert unknown("cloister-site", ["start", "--loud"]) == ["cloister-site start --loud"]
    assert unknown("cloister-coordinator", ["plan", "guess"]) == ["cloister-coordinator guess"]


def test_every_command_and_option_exists(texts: dict[str, str]) -> None:
    lines = [line for name in texts for line in spans(name, texts[name])]
    named = [found for line in lines for found in commands(line)]
    assert len(named) >= 8
    assert [fault for command, words in named for fault in unknown(command, words)] == []


def spans(name: str, text: str) -> list[str]:
    """Of a page its code, of another file the lines that are no comments."""
    if name.endswith(".md"):
        blocks = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
        return [line for block in blocks for line in block.splitlines()]
    return [line for line in text.splitlines() if not line.lstrip().startswith("#") and "image:" not in line]


def test_the_environment_is_the_commands_own(texts: dict[str, str]) -> None:
    named = set(re.findall(r"\bCLOISTER_[A-Z]+_HOME\b", "".join(texts.values())))
    assert named == {"CLOISTER_SITE_HOME", "CLOISTER_COORDINATOR_HOME"}
    told = {
        variable
        for app in APPS.values()
        for command in typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for variable in ([parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or [])
    }
    assert named <= told


# --- systemd ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["site", "coordinator"])
def test_a_unit_is_hardened_and_is_not_started_again_after_damage(deploy: Path, side: str) -> None:
    service = unit(deploy / f"cloister-{side}.service")
    assert {key: service[key] for key in SECURITY} == SECURITY
    assert set(service["RestartPreventExitStatus"].split()) >= NEVER_AGAIN
    assert "75" not in service["RestartPreventExitStatus"].split()
    assert service["Environment"].startswith(f"CLOISTER_{side.upper()}_HOME={service['ReadWritePaths']}/")


@pytest.mark.parametrize("side", ["site", "coordinator"])
def test_systemd_never_gives_up_on_a_side_that_may_start(deploy: Path, side: str) -> None:
    """A clock that is set right an hour after the machine's start, say, leaves a node out for half a minute more."""
    text = (deploy / f"cloister-{side}.service").read_text(encoding="utf-8")
    assert re.findall(r"^StartLimit\w+=.*$", text, re.MULTILINE) == ["StartLimitIntervalSec=0"]
    assert unit(deploy / f"cloister-{side}.service")["RestartSec"] == "30"


def test_a_site_may_not_listen_also_where_systemd_has_no_bpf(deploy: Path) -> None:
    """By its system calls; none of them is given back later, and the coordinator keeps them."""
    filters = {
        side: re.findall(r"^SystemCallFilter=(.*)$", (deploy / f"cloister-{side}.service").read_text(), re.MULTILINE)
        for side in ("site", "coordinator")
    }
    assert filters["coordinator"] == ["@system-service"]
    assert filters["site"] == ["@system-service", "~bind listen accept accept4"]


def test_a_site_may_bind_no_port_and_a_coordinator_two(deploy: Path) -> None:
    ports = {
        side: re.findall(
            r"^SocketBindAllow=tcp:(\d+)$", (deploy / f"cloister-{side}.service").read_text(), re.MULTILINE
        )
        for side in ("site", "coordinator")
    }
    assert (ports["site"], len(ports["coordinator"])) == ([], 2)


@pytest.mark.skipif(SYSTEMD is None, reason="no systemd here")
@pytest.mark.parametrize("side", ["site", "coordinator"])
def test_systemd_takes_the_unit(deploy: Path, side: str, tmp_path: Path) -> None:
    """Its own check, with the one thing replaced that is not on this machine: the command."""
    copy = tmp_path / f"cloister-{side}.service"
    text = (deploy / copy.name).read_text(encoding="utf-8")
    found = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)
    assert found is not None
    copy.write_text(text.replace(found.group(1), shutil.which("true") or ""), encoding="utf-8")
    assert verified(copy) == ""
    copy.write_text(copy.read_text(encoding="utf-8").replace("ProtectSystem=", "ProtectSytsem="), encoding="utf-8")
    assert "ProtectSytsem" in verified(copy)


def verified(path: Path) -> str:
    command = [SYSTEMD or "", "verify", "--man=no", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "".join(line for line in done.stderr.splitlines(keepends=True) if path.name in line)


# --- containers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services(deploy: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((deploy / "compose.yaml").read_text(encoding="utf-8"))
    assert set(loaded["volumes"]) == set(loaded["services"])
    return dict(loaded["services"])


@pytest.mark.parametrize("side", ["site", "coordinator"])
def test_a_container_is_hardened_and_its_home_lies_inside_its_volume(services: dict[str, Any], side: str) -> None:
    service = services[side]
    assert (service["read_only"], service["cap_drop"], service["stop_grace_period"]) == (True, ["ALL"], "10s")
    assert "no-new-privileges:true" in service["security_opt"]
    mounts = [volume["target"] if isinstance(volume, dict) else volume.split(":")[1] for volume in service["volumes"]]
    home = service["environment"][f"CLOISTER_{side.upper()}_HOME"]
    assert home not in mounts
    assert str(Path(home).parent) in mounts


def test_records_are_read_only_and_a_coordinator_need_not_name_any(services: dict[str, Any]) -> None:
    """Compose fills in the whole file for either side, so that a variable which must be set is asked of both."""
    (records,) = [volume for volume in services["site"]["volumes"] if isinstance(volume, dict)]
    assert (records["type"], records["target"], records["read_only"]) == ("bind", "/records", True)
    assert records["source"] == "${RECORDS:-/dev/null/RECORDS-is-not-set}"  # below a file there can be no folder


def test_a_site_publishes_no_port_and_a_coordinator_one(services: dict[str, Any]) -> None:
    assert "ports" not in services["site"]
    assert len(services["coordinator"]["ports"]) == 1


def test_images_are_built_here_and_never_pulled(services: dict[str, Any], deploy: Path) -> None:
    for service in services.values():
        assert service["pull_policy"] == "never"
        assert "/" not in service["image"]
        assert service["build"]["args"]["BASE_IMAGE"].startswith("${BASE_IMAGE:?")
        assert (deploy / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    steps = (deploy / "Containerfile").read_text(encoding="utf-8")
    assert re.findall(r"^FROM (.*)$", steps, re.MULTILINE) == ["${BASE_IMAGE}"]
    assert "--no-index" in steps
