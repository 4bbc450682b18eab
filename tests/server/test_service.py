"""The service's own decisions, with SuperLink, gateway and Control API replaced; tests/end_to_end runs real ones."""

import socket
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import ClassVar

import pytest

import server.service
from common.errors import CloisterError, ConfigError, DeadlineError, TransportError, TryAgainError
from common.file_lock import alone
from server.config import load_coordinator_config
from server.control import Node
from server.gateway.access import AccessLine
from server.service import Service
from tests.federation_play import make_federation
from tests.gateway_play import wait_until


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_base):
    return make_federation(tmp_path_factory.mktemp("play"), tiny_base, ("a", "b")).coordinator


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


def quick_config(home):
    """Short waits, and a port of loopback that is free."""
    config = load_coordinator_config(home.config)
    waiting = {"superlink_restarts": 2, "superlink_start_seconds": 0.2}
    listen = {"host": "127.0.0.1", "port": free_port()}
    return config.model_copy(
        update={
            "waiting": config.waiting.model_copy(update=waiting),
            "listen": config.listen.model_copy(update=listen),
        }
    )


class Link:
    """A SuperLink that runs until it is told otherwise."""

    made: ClassVar[list] = []
    exit_code = None
    pid = 1

    def __init__(self, *_):
        self.stopped = 0
        Link.made.append(self)

    def stop(self):
        self.stopped += 1


class Control:
    def __init__(self):
        self.known = {}
        self.error = None
        self.calls = []

    def nodes(self):
        if self.error is not None:
            raise self.error
        return tuple(Node(number, key, True) for key, number in self.known.items())

    def register(self, key):
        self.calls.append(("register", key))
        self.known[key] = len(self.calls) + 100
        return self.known[key]

    def unregister(self, number):
        self.calls.append(("unregister", number))
        self.known = {key: each for key, each in self.known.items() if each != number}


@pytest.fixture
def play(home, monkeypatch):
    """A service in a thread; gives it, its control and its end."""
    Link.made = []
    control, stop, audit, keys = Control(), threading.Event(), [], []
    monkeypatch.setattr(server.service, "SuperLink", Link)
    monkeypatch.setattr(server.service, "control_of", lambda *_, **__: control)
    monkeypatch.setattr(server.service, "_LOOK_SECONDS", 0.005)
    monkeypatch.setattr(server.service, "_WATCH_SECONDS", 0.0)

    def gateway(settings, note, stop, ready):
        ready("127.0.0.1", 1)
        keys.append(settings.node_keys)
        note(AccessLine(datetime.now(UTC), "10.0.0.9", "/v1/fleet/get-fab", 404, 1, 2, 3))
        stop.wait()

    monkeypatch.setattr(server.service, "run_gateway", gateway)
    config = quick_config(home)
    ready = threading.Event()
    service = Service(home, config, SimpleNamespace(record=audit.append), stop, on_ready=ready.set)
    ends = []

    def run():
        try:
            service.run()
            ends.append(None)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            ends.append(error)

    thread = threading.Thread(target=run)
    yield SimpleNamespace(
        service=service, control=control, stop=stop, ready=ready, ends=ends, thread=thread, audit=audit, keys=keys
    )
    stop.set()
    if thread.ident:
        thread.join()


def test_it_serves_until_it_is_stopped_and_leaves_nothing_running(play):
    play.thread.start()
    assert play.ready.wait(5)
    play.stop.set()
    play.thread.join(5)
    assert (play.ends, [link.stopped for link in Link.made]) == ([None], [1])
    assert [event.path for event in play.audit] == ["other"]


def test_nodes_are_those_of_the_enrolled_sites_also_while_it_runs(play, home):
    play.control.known = {b"of a site that was withdrawn": 7}
    play.thread.start()
    wait_until(lambda: len(play.control.calls) == 3)
    assert ("unregister", 7) in play.control.calls
    assert play.ready.wait(5)
    wait_until(lambda: play.keys)
    kept = home.site("b").read_bytes()
    home.site("b").unlink()
    wait_until(lambda: len(play.control.known) == 1)
    assert set(play.keys[0]()) == set(play.control.known)  # at the gateway too, from then on
    home.site("b").write_bytes(kept)
    wait_until(lambda: len(play.control.known) == 2)


def test_a_superlink_that_ends_is_started_again_a_few_times(play):
    play.thread.start()
    assert play.ready.wait(5)
    for count in (1, 2):
        wait_until(lambda count=count: len(Link.made) == count)
        Link.made[-1].exit_code = 1
    wait_until(lambda: len(Link.made) == 3)
    Link.made[-1].exit_code = 1
    play.thread.join(5)
    assert "ended 3 times within ten minutes" in play.ends[0].message
    assert all(link.stopped for link in Link.made)


def test_a_superlink_that_is_never_ready_is_told_and_ended(play):
    play.control.error = TransportError("nobody there")
    play.thread.start()
    play.thread.join(5)
    assert isinstance(play.ends[0], DeadlineError)
    assert [link.stopped for link in Link.made] == [1]


def test_a_stop_is_heard_while_the_superlink_starts(play):
    play.control.error = TransportError("nobody there")
    play.stop.set()
    play.thread.start()
    play.thread.join(5)
    assert play.ends == [None]


@pytest.mark.parametrize("error", [ConfigError("port 1 is taken"), None], ids=["with an error", "by itself"])
def test_a_gateway_that_ends_takes_the_service_with_it(play, monkeypatch, error):
    def gateway(*_):
        if error is not None:
            raise error

    monkeypatch.setattr(server.service, "run_gateway", gateway)
    play.thread.start()
    play.thread.join(5)
    assert play.ends[0] is error or "gateway ended by itself" in play.ends[0].message
    assert [link.stopped for link in Link.made] == [1]
    assert isinstance(play.ends[0], CloisterError)


def test_a_port_that_another_program_holds_is_told_with_its_key_before_anything_is_started(play):
    with closing(socket.create_server(("127.0.0.1", play.service.config.gateway_port))):
        play.thread.start()
        play.thread.join(5)
    (error,) = play.ends
    assert isinstance(error, ConfigError)
    assert error.message.endswith(f"port {play.service.config.gateway_port}: address already in use")
    assert "set listen.port in coordinator.toml" in error.hint
    assert Link.made == []


def test_who_is_connected_is_told_when_it_changes(play, home):
    told = []
    play.service.on_sites = lambda online: told.append(dict(online))
    play.thread.start()
    wait_until(lambda: {"a": True, "b": True} in told)
    count = len(told)
    time.sleep(0.05)
    assert len(told) == count


def test_one_service_a_home(home):
    with alone(home.lock), pytest.raises(TryAgainError), alone(home.lock):
        pass
    with alone(home.lock):
        pass
