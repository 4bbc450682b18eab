import pytest

from client.opening import open_site
from client.status import StatusBoard
from common.errors import ConfigError, IntegrityError, TryAgainError
from common.file_lock import alone
from tests.site_play import make_site_play


@pytest.fixture
def play(tmp_path):
    play = make_site_play(tmp_path)
    yield play
    play.close()


def opening(play):
    return open_site(play.home, StatusBoard(play.home.status))


def test_a_home_opens_with_everything_that_its_node_needs(play):
    with opening(play) as opened:
        assert opened.config.name == opened.pinned.invitation.site == opened.site.name == "a"
        assert opened.site.fatal is None


def test_the_name_in_the_settings_is_the_one_that_is_enrolled(play):
    text = play.home.config.read_text()
    play.home.config.write_text(text.replace('name = "a"', 'name = "b"'))
    before = play.home.ledger.read_bytes()
    with pytest.raises(
        ConfigError, match=r"site\.toml calls this site 'b', and the coordinator knows it as 'a'"
    ) as error:
        opening(play).__enter__()
    assert "put the name back" in error.value.hint
    assert play.home.ledger.read_bytes() == before


@pytest.mark.parametrize("name", ["ledger", "ledger_anchor", "audit_anchor", "inbox"])
def test_what_is_missing_is_not_begun_anew(play, name):
    path = getattr(play.home, name)
    path.unlink()
    with pytest.raises(IntegrityError):
        opening(play).__enter__()
    assert not path.exists()


@pytest.mark.parametrize("name", ["config", "coordinator", "identity_key"])
def test_without_settings_coordinator_or_key_it_stays_closed(play, name):
    getattr(play.home, name).unlink()
    with pytest.raises(ConfigError):
        opening(play).__enter__()


@pytest.mark.parametrize("name", ["path", "keys", "ledger_anchor"])
def test_what_others_may_reach_keeps_it_closed(play, name):
    getattr(play.home, name).chmod(0o755)
    with pytest.raises(ConfigError, match="so that others may reach it") as error:
        opening(play).__enter__()
    assert "chmod" in error.value.hint


def test_one_node_a_home(play):
    with alone(play.home.lock):
        assert int(play.home.lock.read_text()) > 0
        with pytest.raises(TryAgainError), alone(play.home.lock):
            pass
    with alone(play.home.lock):
        pass


def test_an_approval_that_was_edited_keeps_it_closed(play):
    """Also while nobody asks for its plan: whoever changed it should not first be noticed by the coordinator."""
    path = play.home.approval(play.federation.sign().digest)
    path.write_bytes(path.read_bytes().replace(b'"by":"', b'"by":"x'))
    with pytest.raises(IntegrityError, match="plan approval"):
        opening(play).__enter__()
    path.unlink()
    with opening(play):
        pass
