"""What the coordinator tells its own SuperLink: which nodes exist, which run to start, which to stop."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from common.channel import CallError, Channel
from common.errors import CloisterError
from server.config import CoordinatorConfig
from server.home import CoordinatorHome
from server.superlink import LOOPBACK

from flwr.cli.build import build_fab_from_files  # isort: skip
from flwr.common.serde import user_config_to_proto  # isort: skip
from flwr.proto.control_pb2 import (  # isort: skip
    ListNodesRequest,
    ListNodesResponse,
    ListRunsRequest,
    ListRunsResponse,
    RegisterNodeRequest,
    RegisterNodeResponse,
    StartRunRequest,
    StartRunResponse,
    StopRunRequest,
    StopRunResponse,
    UnregisterNodeRequest,
    UnregisterNodeResponse,
)
from flwr.proto.fab_pb2 import Fab  # isort: skip
from flwr.supercore.constant import NodeStatus  # isort: skip
from flwr.supercore.error import ApiErrorCode  # isort: skip

_PROJECT = """\
[project]
name = "cloister-run"
version = "1.0.0"
description = "Names the coordinator's installed code; holds none."
license = {file = "LICENSE"}
dependencies = ["flwr>=1.41.0"]

[tool.flwr.app]
publisher = "cloister"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "server.app:no_client_app"

[tool.flwr.app.config]
home = ""
plan = ""
resume = "no"
enough = "no"
"""
_LICENSE = b"There is no code in this bundle; the code it names is installed with Cloister, under Cloister's licence.\n"


@dataclass(frozen=True)
class Node:
    """A registered node as the SuperLink knows it.

    Attributes:
        node_id: Flower's number.
        public_key: PEM.
        online: Whether it has been heard of lately.
        connected: When it connected last, in Flower's words; empty where it never has.
    """

    node_id: int
    public_key: bytes
    online: bool
    connected: str = ""


class Control:
    """The SuperLink's Control API, over loopback.

    Args:
        channel: To the SuperLink.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def nodes(self) -> tuple[Node, ...]:
        """Registered nodes; Flower lists those that were unregistered, too."""
        answer = self._channel.call("/v1/control/list-nodes", ListNodesRequest(), ListNodesResponse)
        return tuple(
            Node(info.node_id, info.public_key, info.status == NodeStatus.ONLINE, info.last_activated_at)
            for info in answer.nodes_info
            if info.status != NodeStatus.UNREGISTERED
        )

    def register(self, public_key: bytes) -> int:
        """Let the holder of a key activate a node; gives the node's number, also when it was registered before."""
        for node in self.nodes():
            if node.public_key.strip() == public_key.strip():
                return node.node_id
        # To the byte as a node shows it: Flower compares the whole text, and PEM ends with a line's end.
        request = RegisterNodeRequest(public_key=public_key.strip() + b"\n")
        return int(self._channel.call("/v1/control/register-node", request, RegisterNodeResponse).node_id)

    def unregister(self, node_id: int) -> None:
        """Let it no longer."""
        self._channel.call(
            "/v1/control/unregister-node", UnregisterNodeRequest(node_id=node_id), UnregisterNodeResponse
        )

    def start_run(self, config: Mapping[str, str]) -> int:
        """Start the ServerApp of this installation; gives Flower's number of the run.

        Args:
            config: `home`, the coordinator's folder; `plan`, the digest; `resume` and `enough`, `yes` or `no`.

        Raises:
            CloisterError: When the SuperLink does not take it.
        """
        content = code_free_bundle()
        fab = Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)
        request = StartRunRequest(fab=fab, override_config=user_config_to_proto(dict(config)))
        run_id = int(self._channel.call("/v1/control/start-run", request, StartRunResponse).run_id)
        if not run_id:
            raise CloisterError("the SuperLink did not take the run", hint="its log says why: superlink.log")
        return run_id

    def run_status(self, run_id: int) -> str:
        """`starting`, `running`, `finished:failed: why` and so on; empty when there is no such run."""
        try:
            answer = self._channel.call("/v1/control/list-runs", ListRunsRequest(run_id=run_id), ListRunsResponse)
        except CallError as error:
            if error.code == ApiErrorCode.RUN_ID_NOT_FOUND:
                return ""
            raise
        run = answer.run_dict.get(run_id)
        if run is None:
            return ""
        word = ":".join(part for part in (run.status.status, run.status.sub_status) if part)
        return ": ".join(part for part in (word, run.status.details) if part)

    def stop_run(self, run_id: int) -> bool:
        """End a run; whether there was one to end."""
        request = StopRunRequest(run_id=run_id)
        try:
            return bool(self._channel.call("/v1/control/stop-run", request, StopRunResponse).success)
        except CallError as error:
            if error.code in (ApiErrorCode.RUN_ID_NOT_FOUND, ApiErrorCode.RUN_ALREADY_FINISHED):
                return False
            raise


def control_of(home: CoordinatorHome, config: CoordinatorConfig, timeout_seconds: float = 10.0) -> Control:
    """The SuperLink's Control API, on loopback."""
    authority = home.ca_certificate.read_text(encoding="ascii")
    address = f"{LOOPBACK}:{config.listen.superlink_port}"
    return Control(Channel(address, authority, "cli", proxy="", timeout_seconds=timeout_seconds))


def code_free_bundle() -> bytes:
    """A Flower app bundle with two files, a description and a licence, and not one line of code."""
    content, _ = build_fab_from_files({"pyproject.toml": _PROJECT.encode(), "LICENSE": _LICENSE})
    return content
