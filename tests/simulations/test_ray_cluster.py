"""Which Ray is started or joined, and how it is set; no Ray is started here (tests/simulations/test_flower_run.py)."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import CloisterError, ConfigError, TransportError
from simulations import ray_cluster
from simulations.ray_cluster import RayWish, running_ray

ONE = {"num_cpus": 1.0, "num_gpus": 0.0}
NODE = {"Alive": True, "Resources": {"CPU": 2.0}}


class FakeRay(SimpleNamespace):
    """Notes what it is asked; `fault` is raised by `init`."""

    def __init__(self, *nodes: dict, fault: Exception | None = None) -> None:
        super().__init__(asked={}, ended=0, fault=fault, found=list(nodes))

    def init(self, **options: Any) -> None:
        self.asked = {**options, "mode": os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")}
        if self.fault is not None:
            raise self.fault

    def nodes(self) -> list[dict]:
        return self.found

    def shutdown(self) -> None:
        self.ended += 1


@pytest.fixture
def join(monkeypatch: pytest.MonkeyPatch):
    """Run with a fake Ray in the place of the real one, in an environment that is put back."""

    def run(ray: FakeRay, wish: RayWish, resources: dict[str, float] = ONE) -> None:
        monkeypatch.setitem(__import__("sys").modules, "ray", ray)
        with running_ray(wish, 3, resources):
            pass

    for name in (
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_MODE",
        "RAY_NUM_REDIS_GET_RETRIES",
        *ray_cluster._ALWAYS,
        *ray_cluster._LOOPBACK,
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return run


def test_without_an_address_ray_keeps_to_loopback_and_to_who_has_the_token(join) -> None:
    ray = FakeRay(NODE)
    join(ray, RayWish(workers=2))
    assert (ray.asked["address"], ray.asked["num_cpus"], ray.asked["mode"]) == ("local", 2, "0")
    assert ray.asked["include_dashboard"] is False
    assert ray.asked["log_to_driver"] is False
    assert (os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"])) == ("token", 64)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not os.path.exists(ray.asked["_temp_dir"])  # noqa: PTH110
    assert ray.ended == 1


def test_with_an_address_the_cluster_is_joined_as_it_is(join) -> None:
    ray = FakeRay(NODE)
    join(ray, RayWish("head:6379"))
    assert ray.asked["address"] == "head:6379"
    assert "num_cpus" not in ray.asked
    assert ray.asked["mode"] is None
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert os.environ["RAY_NUM_REDIS_GET_RETRIES"] == "1"
    environment = ray.asked["runtime_env"]["env_vars"]
    assert (environment["FLWR_TELEMETRY_ENABLED"], environment["HF_HUB_OFFLINE"]) == ("0", "1")


@pytest.mark.parametrize("fault", [ConnectionError(), RuntimeError(), ValueError()])
def test_a_cluster_that_does_not_answer_is_one_sentence(join, fault: Exception) -> None:
    ray = FakeRay(fault=fault)
    with pytest.raises(TransportError, match="no Ray cluster answers at head:6379") as caught:
        join(ray, RayWish("head:6379"))
    assert caught.value.exit_code == 4
    assert ray.ended == 1


def test_a_ray_that_does_not_start_is_one_sentence(join) -> None:
    with pytest.raises(CloisterError, match=r"could not be started on this machine \(RuntimeError\)"):
        join(FakeRay(fault=RuntimeError("words of Ray")), RayWish())


@pytest.mark.parametrize(
    ("nodes", "fits"),
    [
        ([NODE], True),
        ([{**NODE, "Alive": False}], False),
        ([{"Alive": True, "Resources": {"CPU": 1.0}}, {"Alive": True, "Resources": {"CPU": 1.0}}], False),
        ([{"Alive": True, "Resources": {}}, NODE], True),
        ([], False),
    ],
)
def test_a_worker_must_fit_one_machine(join, nodes: list[dict], fits: bool) -> None:
    wanted = {"num_cpus": 2.0, "num_gpus": 0.0}
    if fits:
        join(FakeRay(*nodes), RayWish(), wanted)
    else:
        with pytest.raises(ConfigError, match="a worker needs CPU 2, and no machine"):
            join(FakeRay(*nodes), RayWish(), wanted)


def test_an_accelerator_is_asked_for_by_name(join) -> None:
    with pytest.raises(ConfigError, match="a worker needs CPU 1, GPU 1, and"):
        join(FakeRay(NODE), RayWish(), {"num_cpus": 1.0, "num_gpus": 1.0})


@pytest.mark.parametrize(
    ("cores", "workers", "cpus", "expected"), [(8, None, 1, 3), (2, None, 1, 2), (2, None, 4, 1), (2, 5, 1, 5)]
)
def test_as_many_workers_as_hospitals_and_processors_allow(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int | None, cpus: float, expected: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert RayWish(workers=workers).workers_for(3, {"num_cpus": cpus, "num_gpus": 0.0}) == expected


def test_the_terminal_is_deaf_while_a_cluster_is_joined_and_hears_again(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLOISTER_DEBUG", raising=False)
    with ray_cluster._deaf_terminal():
        os.write(2, b"words of Ray\n")
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"
