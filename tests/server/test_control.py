import hashlib
import zipfile
from io import BytesIO

import pytest
from flwr.proto.control_pb2 import (
    ListNodesResponse,
    ListRunsResponse,
    RegisterNodeResponse,
    StartRunResponse,
    StopRunResponse,
    UnregisterNodeResponse,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus
from flwr.supercore.constant import NodeStatus
from flwr.supercore.error import ApiErrorCode

from common.channel import CallError
from common.errors import CloisterError
from server.control import Control, Node, code_free_bundle

# Flower builds a bundle with an old name of a library of its own.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

INFOS = [
    NodeInfo(node_id=1, public_key=b"one\n", status=NodeStatus.ONLINE),
    NodeInfo(node_id=2, public_key=b"two\n", status=NodeStatus.OFFLINE),
    NodeInfo(node_id=3, public_key=b"three\n", status=NodeStatus.REGISTERED),
    NodeInfo(node_id=4, public_key=b"four\n", status=NodeStatus.UNREGISTERED),
]


class Channel:
    """Answers each call as a test says, or with an error, and keeps what was asked."""

    def __init__(self, **answers):
        self.answers = {"list_nodes": ListNodesResponse(nodes_info=INFOS), **answers}
        self.asked = []

    def call(self, path, request, kind):
        name = path.removeprefix("/v1/control/").replace("-", "_")
        self.asked.append((name, request))
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, kind)
        return answer


def refused(code):
    return CallError("refused", status=400, code=code)


def test_nodes_are_those_that_are_registered():
    assert Control(Channel()).nodes() == (
        Node(1, b"one\n", True),
        Node(2, b"two\n", False),
        Node(3, b"three\n", False),
    )


def test_a_key_that_is_registered_is_not_registered_again():
    channel = Channel()
    assert Control(channel).register(b"two") == 2
    assert [name for name, _ in channel.asked] == ["list_nodes"]


@pytest.mark.parametrize("key", [b"five", b"four\n"], ids=["new", "unregistered before"])
def test_another_key_is_registered_in_one_spelling(key):
    channel = Channel(register_node=RegisterNodeResponse(node_id=9))
    assert Control(channel).register(key) == 9
    assert channel.asked[-1][1].public_key == key.strip() + b"\n"


def test_a_node_is_unregistered_by_its_number():
    channel = Channel(unregister_node=UnregisterNodeResponse())
    Control(channel).unregister(2)
    assert channel.asked[-1][1].node_id == 2


def test_a_run_is_started_with_a_bundle_that_holds_no_code():
    channel = Channel(start_run=StartRunResponse(run_id=77))
    assert Control(channel).start_run({"home": "/h", "plan": "ab"}) == 77
    (_, request) = channel.asked[-1]
    assert request.fab.hash_str == hashlib.sha256(request.fab.content).hexdigest()
    assert {name: value.string for name, value in request.override_config.items()} == {"home": "/h", "plan": "ab"}


def test_a_run_that_is_not_taken_is_an_error():
    with pytest.raises(CloisterError, match="did not take the run"):
        Control(Channel(start_run=StartRunResponse())).start_run({})


def test_the_bundle_has_a_description_and_a_licence_and_not_one_line_of_code():
    with zipfile.ZipFile(BytesIO(code_free_bundle())) as bundle:
        names = set(bundle.namelist())
        project = bundle.read("pyproject.toml").decode()
    assert {name for name in names if not name.startswith(".info")} == {"pyproject.toml", "LICENSE"}
    assert not {name for name in names if name.endswith((".py", ".pyc", ".so"))}
    assert 'serverapp = "server.app:app"' in project


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (RunStatus(status="running"), "running"),
        (RunStatus(status="finished", sub_status="completed"), "finished:completed"),
        (RunStatus(status="finished", sub_status="failed", details="why"), "finished:failed: why"),
    ],
)
def test_a_runs_status_is_one_line(status, words):
    assert (
        Control(Channel(list_runs=ListRunsResponse(run_dict={7: Run(run_id=7, status=status)}))).run_status(7) == words
    )


def test_a_run_that_the_superlink_does_not_know_has_no_status_and_cannot_be_stopped():
    unknown = refused(ApiErrorCode.RUN_ID_NOT_FOUND)
    assert Control(Channel(list_runs=ListRunsResponse())).run_status(7) == ""
    assert Control(Channel(list_runs=unknown)).run_status(7) == ""
    assert not Control(Channel(stop_run=unknown)).stop_run(7)


def test_a_run_is_stopped_once():
    assert Control(Channel(stop_run=StopRunResponse(success=True))).stop_run(7)
    assert not Control(Channel(stop_run=refused(ApiErrorCode.RUN_ALREADY_FINISHED))).stop_run(7)


@pytest.mark.parametrize("call", ["run_status", "stop_run"])
def test_another_refusal_comes_out(call):
    channel = Channel(list_runs=refused(0), stop_run=refused(ApiErrorCode.NO_PERMISSIONS))
    with pytest.raises(CallError):
        getattr(Control(channel), call)(7)
