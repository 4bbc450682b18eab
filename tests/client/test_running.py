"""A node in this process; as a process of its own it is in tests/client/commands/test_node.py."""

from pathlib import Path

import pytest

from client.keys import site_identity
from client.node_process import running_node
from client.running import NodeRun
from client.status import read_status
from common.audit import verify_audit
from common.audit_events import Started, Stopped
from common.errors import AccessError, CloisterError, TransportError, TryAgainError
from common.file_lock import alone
from common.identity import public_name
from tests.site_commands import Play


class Link:
    """Fails at what it is told to fail at."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def connect(self) -> None:
        raise self.error

    def close(self) -> None:
        pass


@pytest.fixture
def joined(tmp_path: Path) -> Play:
    return Play(tmp_path).join()


def run(play: Play, error: Exception, patience: float | None = 0.0) -> None:
    NodeRun(play.site, lambda *_: Link(error), patience_seconds=patience).run()


def events(play: Play) -> list:
    public = public_name(site_identity(play.site))
    return [entry.event for entry in verify_audit(play.site.audit, play.site.audit_anchor, public).entries]


@pytest.mark.parametrize(
    ("error", "patience"), [(AccessError("another certificate"), None), (TransportError("nobody is there"), 0.0)]
)
def test_what_ends_a_node_is_raised_shown_and_written_down(joined: Play, error: CloisterError, patience) -> None:
    with pytest.raises(type(error)):
        run(joined, error, patience)
    status = read_status(joined.site.status)
    assert (status.doing, status.detail) == ("failed", error.message)
    assert isinstance(events(joined)[-2], Started)
    assert events(joined)[-1] == Stopped(part="site", reason="failed", exit_code=4)
    assert running_node(joined.site) is None


def test_of_an_unexpected_error_only_the_kind_is_kept(joined: Play) -> None:
    with pytest.raises(KeyError):
        run(joined, KeyError("patient 4711"))
    assert "4711" not in joined.site.status.read_text()
    assert "KeyError" in joined.site.status.read_text()
    assert events(joined)[-1] == Stopped(part="site", reason="failed", exit_code=1)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("chmod", 3),
        ("toml", 3),
        ("ledger", 13),
        ("ledger_anchor", 13),
        ("audit", 14),
        ("inbox", 13),
        ("coordinator", 3),
    ],
)
def test_a_home_that_is_not_sound_is_refused_before_anything_is_called(joined: Play, fault: str, code: int) -> None:
    match fault:
        case "chmod":
            joined.site.identity_key.chmod(0o644)
        case "toml":
            joined.site.config.write_text("name = 3\n")
        case _:
            getattr(joined.site, fault).unlink()
    with pytest.raises(CloisterError) as refused:
        run(joined, AssertionError("the coordinator was called"))
    assert refused.value.exit_code == code
    assert read_status(joined.site.status).doing == "failed"


def test_there_is_one_node_a_home(joined: Play) -> None:
    with alone(joined.site.lock), pytest.raises(TryAgainError, match="already, as process"):
        run(joined, AssertionError("the coordinator was called"))
    assert not joined.site.status.exists()
