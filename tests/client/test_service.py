"""A scripted link stands in for the network; a scripted clock for the time that passes in pauses."""

import threading
import time
from dataclasses import dataclass, field

import pytest
import structlog

import client.service
from client.config import NetworkConfig
from client.service import serve
from client.status import StatusBoard, read_status
from common.errors import AccessError, IntegrityError, ProtocolError, RollbackError, TransportError, TryAgainError

AWAY = TransportError("127.0.0.1:9 cannot be reached", hint="check the address")
NETWORK = NetworkConfig(least_poll_seconds=0.1, most_poll_seconds=1.0, most_reconnect_seconds=5.0)


class Enough(BaseException):
    """The script is over."""


@dataclass
class Message:
    envelope: bytes


@dataclass
class Script:
    """One list of what each call gives for all links; an exception is raised, and `Enough` comes at the end."""

    connects: list = field(default_factory=list)
    receives: list = field(default_factory=list)
    replies: list = field(default_factory=list)
    heard: list = field(default_factory=list)
    beats: list = field(default_factory=list)

    def link(self):
        self.heard.append("open")
        return ScriptedLink(self)


def play(steps, default=None):
    step = steps.pop(0) if steps else default
    if isinstance(step, BaseException):
        raise step
    return step


class ScriptedLink:
    def __init__(self, script):
        self.script = script
        self.closed = False

    def connect(self):
        self.script.heard.append("connect")
        play(self.script.connects)

    def heartbeat(self):
        self.script.heard.append("beat")
        if self.closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        play(self.script.beats)

    def receive(self):
        return play(self.script.receives, Enough())

    def reply(self, delivery, envelope):
        self.script.heard.append((delivery.envelope, envelope))
        play(self.script.replies)

    def close(self):
        self.closed = True
        self.script.heard.append("close")


class Echo:
    """Answers every request but `nothing`."""

    def __init__(self):
        self.fatal = None

    def answer(self, request):
        return None if request == b"nothing" else b"to " + request


@pytest.fixture
def naps(monkeypatch):
    """Pauses, which pass at once; the clock goes on by them."""
    taken = []
    monkeypatch.setattr(client.service.time, "sleep", taken.append)
    monkeypatch.setattr(client.service.time, "monotonic", lambda: sum(taken))
    return taken


@pytest.fixture
def run(tmp_path, naps):
    def run(script, site=None, patience=None, error=Enough):
        board = StatusBoard(tmp_path / "status.json")
        with pytest.raises(error) as caught, structlog.testing.capture_logs() as logs:
            serve(site or Echo(), script.link, NETWORK, board, heartbeat_seconds=3600.0, patience_seconds=patience)
        script.logs = logs
        script.status = read_status(tmp_path / "status.json")
        return caught.value

    return run


def test_messages_are_answered_in_order_and_the_link_is_closed(run, naps):
    script = Script(receives=[Message(b"one"), Message(b"nothing"), Message(b"two")])
    run(script)
    assert script.heard == ["open", "connect", (b"one", b"to one"), (b"two", b"to two"), "close"]
    assert naps == [0.1] * 3, "right after an answer there is nothing to find"
    assert script.status.doing == "waiting"


def test_pauses_between_looks_grow_and_begin_anew_after_a_message(run, naps):
    run(Script(receives=[None] * 12 + [Message(b"one"), None, None]))
    assert naps[:4] == pytest.approx([0.1 * client.service._GROWTH**step for step in range(4)])
    assert client.service._GROWTH >= 1.25
    assert naps[11] == 1.0 == max(naps)
    assert naps[12:] == pytest.approx([naps[0], *naps[:2]])


@pytest.mark.parametrize("error", [AWAY, AccessError("another certificate")])
def test_a_lost_connection_is_made_anew(run, naps, error):
    script = Script(receives=[Message(b"one"), error, Message(b"two")])
    run(script)
    assert script.heard == ["open", "connect", (b"one", b"to one"), "close", "open", "connect", (b"two", b"to two"),
                            "close"]  # fmt: skip
    assert naps == [0.1, 0.2, 0.1]


def told(script):
    """Level and event of each line about the connection."""
    events = {"connection lost", "still no connection", "connected"}
    return [(entry["log_level"], entry["event"]) for entry in script.logs if entry["event"] in events]


LOST, CONNECTED = ("warning", "connection lost"), ("info", "connected")


def test_pauses_between_tries_grow_to_the_limit_and_one_warning_is_given(run, naps):
    script = Script(connects=[AWAY] * 8, receives=[None])
    run(script)
    assert naps[:8] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert told(script) == [LOST, CONNECTED]


def test_a_reason_that_changes_is_a_warning_and_one_that_stays_is_a_line_in_five_minutes(run):
    script = Script(connects=[AWAY, AWAY, TransportError("another reason"), AWAY, AWAY])
    run(script)
    assert told(script) == [LOST] * 3
    script = Script(connects=[AWAY] * 130)  # 6.2 s, and then every 5 s
    run(script)
    assert told(script) == [LOST, ("info", "still no connection"), ("info", "still no connection")]


def test_a_coordinator_that_lets_in_and_answers_nothing_is_not_called_connected(run):
    script = Script(receives=[AWAY] * 6)
    run(script)
    assert told(script) == [LOST]


def test_a_coordinator_that_lets_in_and_answers_nothing_is_tried_ever_more_slowly(run, naps):
    run(Script(receives=[AWAY] * 6))
    assert naps == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0]


def test_pauses_between_tries_begin_anew_once_a_call_was_answered(run, naps):
    script = Script(receives=[AWAY, AWAY, None, AWAY, AWAY])
    run(script)
    assert naps == [0.2, 0.4, 0.1, 0.2, 0.4]
    assert told(script) == [LOST, CONNECTED, LOST]


def test_while_there_is_no_connection_the_status_says_so(run, tmp_path):
    script = Script(connects=[AWAY, Enough()])
    run(script)
    assert (script.status.doing, script.status.detail) == (
        "connecting",
        "127.0.0.1:9 cannot be reached; trying again",
    )


# --- the first connection --------------------------------------------------------------------------------------------


def test_a_first_connection_that_is_refused_ends_it(run, naps):
    script = Script(connects=[AWAY, AccessError("this node is not known")])
    run(script, error=AccessError)
    assert script.heard == ["open", "connect", "close", "open", "connect", "close"]


def test_after_a_first_connection_a_refusal_is_tried_again(run):
    script = Script(connects=[None, AccessError("this node is not known yet")], receives=[AWAY, Message(b"one")])
    run(script)
    assert (b"one", b"to one") in script.heard


def test_patience_is_for_the_first_connection(run, naps):
    assert run(Script(connects=[AWAY] * 9), patience=3.0, error=TransportError) is AWAY
    assert 3.0 <= sum(naps) < 3.0 + 1.6 + 0.1


def test_no_patience_is_one_try(run, naps):
    run(Script(connects=[AWAY]), patience=0.0, error=TransportError)
    assert naps == []


def test_patience_does_not_count_after_a_first_connection(run):
    run(Script(connects=[None] + [AWAY] * 9, receives=[AWAY]), patience=1.0)


# --- what must not end a node ----------------------------------------------------------------------------------------


def test_a_message_that_is_none_of_ours_is_passed_over(run, naps):
    script = Script(receives=[ProtocolError("a message must hold one sealed envelope"), Message(b"one")])
    run(script)
    assert script.heard == ["open", "connect", (b"one", b"to one"), "close"]
    assert naps == [0.1, 0.1], "a stream of bad messages must not keep a processor busy"


def test_an_answer_that_is_not_wanted_any_more_is_left(run):
    script = Script(receives=[Message(b"one"), Message(b"two")], replies=[ProtocolError("the run is over")])
    run(script)
    assert script.heard == ["open", "connect", (b"one", b"to one"), (b"two", b"to two"), "close"]


@pytest.mark.parametrize("error", [AWAY, AccessError("HTTP 403")])
def test_a_connection_that_is_lost_over_an_answer_is_made_anew(run, error):
    """To the coordinator the node has come anew then, and it sends the order again."""
    script = Script(receives=[Message(b"one"), Message(b"one")], replies=[error])
    run(script)
    one = (b"one", b"to one")
    assert script.heard == ["open", "connect", one, "close", "open", "connect", one, "close"]


def test_a_busy_book_is_no_answer_and_no_end(run):
    """To a node that comes anew the coordinator sends its order again, and by then the other command is done."""

    class Busy(Echo):
        held = True

        def answer(self, request):
            if self.held:
                self.held = False
                raise TryAgainError("another process holds the log")
            return super().answer(request)

    script = Script(receives=[Message(b"one"), Message(b"one")])
    run(script, Busy())
    assert script.heard == ["open", "connect", "close", "open", "connect", (b"one", b"to one"), "close"]


# --- what must end one -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [IntegrityError("a book is damaged"), OSError(28, "No space left on device")])
def test_damage_at_home_ends_it_and_nothing_is_sent(run, error):
    class Broken(Echo):
        def answer(self, request):
            raise error

    script = Script(receives=[Message(b"one")])
    assert run(script, Broken(), error=type(error)) is error
    assert script.heard == ["open", "connect", "close"]


@pytest.mark.parametrize("replies", [[], [AWAY]])
def test_a_rollback_ends_it_after_the_answer_was_sent(run, replies):
    class Old(Echo):
        def answer(self, request):
            self.fatal = RollbackError("an older copy was put back")
            return b"refused"

    script = Script(receives=[Message(b"one"), Message(b"two")], replies=replies)
    run(script, Old(), error=RollbackError)
    assert script.heard == ["open", "connect", (b"one", b"refused"), "close"]


def test_a_link_that_cannot_be_made_ends_it(run, tmp_path):
    def no_link():
        raise TransportError("the certificate authority is not a PEM certificate")

    script = Script()
    script.link = no_link
    run(script, error=TransportError)


# --- signs of life ---------------------------------------------------------------------------------------------------


def serve_for(script, seconds, tmp_path, site=None):
    """With real time, and a sign of life every few milliseconds."""

    ends = []

    class Link(ScriptedLink):
        def receive(self):
            if self.script.receives:
                return play(self.script.receives)
            ends.append(time.monotonic() + seconds)
            if time.monotonic() > ends[0]:
                raise Enough
            return None

    script.link = lambda: script.heard.append("open") or Link(script)
    network = NetworkConfig(least_poll_seconds=0.01, most_poll_seconds=0.01, most_reconnect_seconds=0.2)
    with pytest.raises(Enough):
        serve(site or Echo(), script.link, network, StatusBoard(tmp_path / "status"), heartbeat_seconds=0.01)


def beating():
    return [thread for thread in threading.enumerate() if thread.name == "heartbeats"]


def test_signs_of_life_come_while_an_answer_is_made_and_end_with_the_connection(tmp_path):
    class Slow(Echo):
        def answer(self, request):
            time.sleep(0.2)
            return b"late"

    script = Script(receives=[Message(b"one")])
    serve_for(script, 0.0, tmp_path, Slow())
    assert script.heard[: script.heard.index((b"one", b"late"))].count("beat") >= 3
    for thread in beating():
        thread.join(timeout=2.0)
    assert beating() == []


def test_a_superlink_that_forgot_the_node_is_connected_to_anew(tmp_path):
    script = Script(beats=[None, TransportError("the SuperLink does not know this node any more")])
    serve_for(script, 0.6, tmp_path)
    assert script.heard.count("connect") == 2


def test_a_sign_of_life_that_is_heard_later_makes_up_for_one_that_was_not(tmp_path):
    class Slow(Echo):
        def answer(self, request):
            time.sleep(0.2)
            return b"late"

    script = Script(receives=[Message(b"one")], beats=[AWAY])
    serve_for(script, 0.1, tmp_path, Slow())
    assert script.heard.count("connect") == 1


def test_a_sign_of_life_on_a_closed_connection_is_quiet(tmp_path):
    """The thread may be about to call when the connection is closed; pytest turns its traceback into a failure."""
    entered, go_on = threading.Event(), threading.Event()

    class Link(ScriptedLink):
        def heartbeat(self):
            entered.set()
            assert go_on.wait(5)
            super().heartbeat()

        def receive(self):
            assert entered.wait(5)
            raise Enough

    script = Script()
    with pytest.raises(Enough):
        serve(Echo(), lambda: Link(script), NETWORK, StatusBoard(tmp_path / "status"), heartbeat_seconds=0.01)
    go_on.set()
    for thread in beating():
        thread.join(timeout=2.0)
    assert script.heard == ["connect", "close", "beat"]


def test_another_fault_of_a_sign_of_life_is_not_hidden(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda caught: seen.append(caught.exc_type))
    script = Script(beats=[RuntimeError("a bug")])
    serve_for(script, 0.2, tmp_path)
    assert seen == [RuntimeError]
