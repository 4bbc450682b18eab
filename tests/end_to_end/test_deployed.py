"""A federation as the guides set it up, with its SuperLink and three nodes as processes, and what must not happen."""

import json
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server.gateway.rules import FLEET_PATHS
from tests.gateway_play import (
    Gateway,
    post,
    read_answer,
    routes_of_the_superlink,
    send_all,
    signed_headers,
    spellings,
    status_of,
    wait_until,
)
from tests.guide_play import FINGERPRINT, HOSPITALS, Play, children, free_ports, steps_until
from tests.socket_watch import LISTENING, Watch, sockets_of

pytestmark = pytest.mark.slow  # setting it up takes about half a minute

HEARTBEAT = "/v1/fleet/send-node-heartbeat"
PUSH = "/v1/fleet/push-object"
LIMIT_BYTES = 33_554_432


@pytest.fixture(scope="module")
def federation(tmp_path_factory, tiny_base):
    """Coordinator and nodes run, the plan is approved everywhere, and no round was run."""
    with Play(tmp_path_factory.mktemp("federation"), free_ports(), tiny_base) as play:
        play.play(steps_until("Run the node"))
        yield play


@pytest.fixture(scope="module")
def gate(federation):
    return Gateway(federation.ports[0], federation.folder / "coordinator" / "keys" / "ca.pem", [])


def fingerprint(text: str) -> str:
    return re.search(FINGERPRINT, text)[0]


def digest(play: Play) -> str:
    return json.loads(play.call("coordinator", "cloister-coordinator plan list --json"))[0]["digest"]


def status(play: Play) -> dict:
    return json.loads(play.call("coordinator", "cloister-coordinator status --json"))


def new_site(play: Play, name: str, coordinator_home: str) -> None:
    """A further hospital, enrolled by the coordinator in a folder, whoever listens at its address."""
    site, home = f"--home {name}", f"--home {coordinator_home}"
    play.call("north", f"cloister-site init {site} --name {name} --data notes --train north.csv")
    own = fingerprint(play.call("north", f"cloister-site request {site} 2>&1 > {name}.request"))
    shown = play.call(
        "north", f"cloister-coordinator enrol {home} {name}.request --fingerprint {own} 2>&1 > {name}.inv"
    )
    theirs = re.findall(FINGERPRINT, shown)[-1]
    play.call("north", f"cloister-site accept {site} {name}.inv --fingerprint {theirs}")


# --- who is not let in ---------------------------------------------------------------------------------------------


def test_a_coordinator_of_another_authority_is_not_talked_to(federation):
    """The address is right and the certificate is valid, but another authority than the pinned one signed it."""
    port = federation.ports[0]
    federation.call("north", f"cloister-coordinator init --home impostor --name other --address 127.0.0.1:{port}")
    new_site(federation, "misled", "impostor")
    shown = federation.call("north", "cloister-site start --home misled", code=4)
    assert "shows a certificate that the pinned authority did not sign" in shown
    assert "hint: is this the coordinator you accepted?" in shown


def test_a_node_whose_key_nobody_registered_is_not_let_in(federation):
    """It is enrolled in a copy of the coordinator's folder, so that all but the register of what runs is right."""
    shutil.copytree(
        federation.folder / "coordinator", federation.folder / "copy", ignore=shutil.ignore_patterns("flower", "*.sock")
    )
    new_site(federation, "stranger", "copy")
    shown = federation.call("north", "cloister-site start --home stranger", code=4)
    assert "the coordinator does not let this node in (HTTP 401, Flower's code 0)" in shown


def test_a_wrong_fingerprint_enrols_nobody_and_pins_nobody(federation):
    wrong = "AAAA-BBBB-CCCC-DDDD-EEEE-FFFF"
    federation.call("north", "cloister-site init --home late --name late --data notes --train north.csv")
    federation.call("north", "cloister-site request --home late > late.request")
    enrol = f"cloister-coordinator enrol late.request --fingerprint {wrong}"
    assert "which is not the" in federation.call("coordinator", enrol, code=4)
    assert "late" not in status(federation)["sites"]
    shown = federation.call("north", f"cloister-site accept north.invitation --fingerprint {wrong}", code=4)
    assert "the invitation comes from a coordinator with the fingerprint" in shown


def test_a_plan_that_nobody_has_approved_trains_nowhere(federation):
    """The hospital takes its approval back; the run ends for lack of sites, and says why in words."""
    plan = digest(federation)
    shown = federation.call("west", f"cloister-site approve {'0' * 64}", code=12)
    assert "error: " in shown
    settings = federation.folder / "coordinator" / "coordinator.toml"
    text = settings.read_text()
    settings.write_text(f"{text}\n[waiting]\ngathering_seconds = 2.0\n")
    federation.call("west", f"cloister-site withdraw {plan[:12]}")
    try:
        shown = federation.call("coordinator", "cloister-coordinator run reactions.plan", code=16)
        also = federation.call("coordinator", "cloister-coordinator status")
    finally:
        settings.write_text(text)
        federation.call("west", f"cloister-site approve {plan}")
    told = "west: waiting, nobody at this site has approved the plan yet"
    assert told in shown
    assert told in also
    assert re.search(r"[012] sites are ready, and the plan needs 3", shown)
    for name in HOSPITALS:
        spent = json.loads(federation.call(name, "cloister-site budget --json"))[0]["spent_on"]
        assert all(one["last_round"] == 0 for one in spent)


# --- what passes from outside --------------------------------------------------------------------------------------


def test_nothing_but_a_nodes_calls_passes_to_the_real_superlink(federation, gate):
    paths = routes_of_the_superlink()
    assert len(paths) >= 76
    inside = sorted(set(paths) - set(FLEET_PATHS))
    others = [*inside, *(spelling for path in (*inside[::16], HEARTBEAT) for spelling in spellings(path))]
    assert {path: answer for path in others if not is_refused(answer := gate.say(post(path)))} == {}
    for method in "GET HEAD PUT DELETE OPTIONS TRACE PATCH CONNECT".split():
        for path in (HEARTBEAT, "/v1/control/list-runs"):
            assert status_of(gate.say(post(path, b"", method))) in (400, 404), (method, path)


def is_refused(answer: bytes) -> bool:
    return status_of(answer) in (400, 404) and answer.endswith(b"\r\n\r\nrefused\n")


def test_the_same_calls_would_be_answered_without_the_gateway(federation, gate):
    """So the test above can fail: on loopback, the SuperLink's inner calls are open to whoever reaches them."""
    inner = Gateway(federation.ports[1], gate.ca, [])
    assert status_of(inner.say(post("/v1/control/list-runs", b""))) == 200
    answer = gate.say(post(HEARTBEAT, b"", signed=signed_by(federation, "north")))
    assert status_of(answer) in (400, 401, 403)  # the SuperLink's own word to a node that does not say its number
    assert not answer.endswith(b"refused\n")


def signed_by(play: Play, name: str) -> str:
    key = load_pem_private_key((play.folder / name / "keys" / "node.key").read_bytes(), None)
    return signed_headers(key)


def test_what_no_enrolled_node_has_signed_is_refused_by_the_gateway_itself(federation, gate):
    for signed in ("", signed_headers()):
        answer = gate.say(post(HEARTBEAT, b"", framing="content-length: 1000\r\n", signed=signed))
        assert (status_of(answer), answer.endswith(b"\r\n\r\nrefused\n")) == (401, True)


def test_a_body_over_the_limit_is_cut_off(federation, gate):
    told = gate.say(post(PUSH, b"", framing=f"content-length: {LIMIT_BYTES + 1}\r\n"))
    assert status_of(told) == 413
    with gate.connect() as connection:
        chunked = {"framing": "transfer-encoding: chunked\r\n", "signed": signed_by(federation, "north")}
        send_all(connection, post(PUSH, b"", **chunked))
        piece = b"100000\r\n" + bytes(2**20) + b"\r\n"
        for _ in range(LIMIT_BYTES // 2**20 + 8):
            send_all(connection, piece)
        assert status_of(read_answer(connection)) in (413, 0)  # a reset may overtake the answer
    wait_until(lambda: any(LIMIT_BYTES < taken < LIMIT_BYTES + 2**20 for taken in cut_off(federation)))


def cut_off(play: Play) -> list[int]:
    """Bytes that the gateway took of each body that was too long, from the coordinator's audit log."""
    lines = (play.folder / "coordinator" / "audit.jsonl").read_text().splitlines()
    fields = [json.loads(line)["fields"] for line in lines if '"kind":"gateway-access"' in line]
    return [one["bytes_in"] for one in fields if (one["path"], one["status"]) == (PUSH, 413)]


def test_the_superlink_listens_on_loopback_only(federation):
    service = federation.services["coordinator"].pid
    listening = {
        found for process in (service, *children(service)) for found in sockets_of(process) if found.state == LISTENING
    }
    assert listening, "the service listens somewhere"
    with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
        socket.create_connection((own_address(), federation.ports[1]), timeout=2).close()


def own_address() -> str:
    """An address of this machine that is not loopback's; a name that leads nowhere where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return "192.0.2.1"
        return probe.getsockname()[0]


# --- what a site does ----------------------------------------------------------------------------------------------


def test_a_site_contacts_the_coordinators_port_and_listens_nowhere_while_rounds_run(federation):
    with Watch(federation.nodes) as watch:
        federation.call("coordinator", "cloister-coordinator run reactions.plan --resume --detach")
        wait_until(lambda: status(federation)["run"]["round"] >= 2, 300)
    assert watch.looks > 20
    assert watch.seen, "the nodes were connected"
    assert {(one.table, one.remote_host, one.remote_port) for one in watch.seen} == {
        ("tcp", "127.0.0.1", federation.ports[0])
    }
    assert not any(one.state == LISTENING for one in watch.seen)


def test_the_watch_sees_a_port_that_listens():
    with socket.create_server(("127.0.0.1", 0)):
        assert any(found.state == LISTENING for found in sockets_of(os.getpid()))


def test_a_run_is_stopped_and_goes_on(federation):
    federation.call("coordinator", "cloister-coordinator stop")
    run = status(federation)["run"]
    assert (run["phase"], run["conducted"]) == ("stopped", False)
    federation.call("coordinator", "cloister-coordinator run reactions.plan --resume --detach")
    wait_until(lambda: status(federation)["run"]["round"] > run["round"], 300)


def test_a_pause_closes_every_connection_within_five_seconds(federation):
    node = federation.services["south"].pid
    took = timed(lambda: federation.call("south", "cloister-site pause"))
    assert took < 7  # five, and the command's own start
    wait_until(lambda: not sockets_of(node), 1)
    assert json.loads(federation.call("south", "cloister-site status --json"))["doing"] == "paused"
    federation.call("south", "cloister-site resume")
    wait_until(lambda: sockets_of(node), 30)


def test_a_node_that_is_told_to_end_is_gone_within_five_seconds(federation):
    node = federation.services["west"]
    node.send_signal(signal.SIGTERM)
    assert timed(lambda: node.wait(10)) < 5
    assert node.returncode == 0
    assert json.loads(federation.call("west", "cloister-site status --json"))["doing"] == "stopped"


def test_a_node_is_stopped_by_its_command(federation):
    node = federation.services["north"]
    federation.call("north", "cloister-site stop")
    assert node.wait(1) == 0
    assert "no node was running" in federation.call("north", "cloister-site stop")


def test_the_service_is_stopped_with_all_that_it_started(federation):
    service = federation.services["coordinator"]
    started = children(service.pid)
    assert started
    federation.call("coordinator", "cloister-coordinator stop --service", seconds=60)
    assert service.wait(5) == 0
    wait_until(lambda: not any(is_alive(process) for process in started), 5)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def timed(action) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started
