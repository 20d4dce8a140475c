"""Where cameras are placed, by Ray's description of the nodes."""

from __future__ import annotations

import tomllib
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import nodes
from cluster.nodes import HEAD, MICROSCOPE, SMALL_SHARE, capture_placements
from config import validate
from scan.errors import UserMistake

REAL = {"microscope": "micromanager"}
ONE, TWO = REAL | {"mm_config": "a.cfg"}, REAL | {"microscopes": ["a.cfg", "b.cfg"]}


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    """A node as Ray describes it."""
    offered = {HEAD if key == "head" else key: amount for key, amount in resources.items()}
    labels = {"role": "scope"} if name == "labelled" else {}
    return {"NodeID": name, "Alive": alive, "Resources": offered, "Labels": labels}


LAPTOP = [node("all", CPU=8, head=1)]
FARM = [node("head", head=1), node("a", CPU=8), node("b", CPU=8)]
LAB = [*FARM, node("pc", CPU=1, microscope=1)]
SCOPES = [*LAB, node("labelled", microscope=1)]
GONE = [*FARM, node("pc", alive=False, CPU=1, microscope=1)]

PLACED = {  # settings, nodes, where cameras live
    "a laptop": ({}, LAPTOP, {"label_selector": {}}),
    "a microscope of its own": (ONE, LAPTOP, {"label_selector": {}}),
    "a head that only heads": ({}, FARM, {"label_selector": {"ray.io/node-id": "!in(head)"}}),
    "simulated on a cluster with a microscope": ({}, LAB, {"resources": {MICROSCOPE: SMALL_SHARE}}),
    "a microscope of the lab": (ONE, LAB, {"resources": {MICROSCOPE: 1}}),
    "two microscopes": (TWO, SCOPES, {"resources": {MICROSCOPE: 1}}),
    "a label": (ONE | {"capture_on": "role=scope"}, SCOPES, {"label_selector": {"role": "scope"}}),
    "another resource": ({"capture_on": "CPU"}, FARM, {"resources": {"CPU": SMALL_SHARE}}),
}
MISSING = {  # settings, nodes, what is said
    "no microscope on a farm": (ONE, FARM, "1 of resource microscope, got 0 free"),
    "its computer is gone": (ONE, GONE, "1 of resource microscope, got 0 free"),
    "one of two": (TWO, LAB, "2 of resource microscope, got 1 free"),
    "asked for by name": ({"capture_on": "scope"}, LAB, "--resources='{\"scope\": 1}'"),
    "asked for by label": ({"capture_on": "role=scope"}, LAB, "node of label role=scope, got 0"),
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A cluster of nodes that a test puts there; nobody waits for more."""
    ray = SimpleNamespace(found=[])

    def amounts() -> dict[str, float]:
        alive = [each["Resources"] for each in ray.found if each["Alive"]]
        return {name: sum(each.get(name, 0) for each in alive) for each in alive for name in each}

    ray.nodes, ray.cluster_resources = lambda: ray.found, amounts
    ray.available_resources = amounts
    monkeypatch.setattr(nodes, "ray", ray)
    monkeypatch.setattr(nodes, "NODE_WAIT_S", 0.0)
    return ray


@pytest.mark.parametrize(("given", "nodes", "expected"), PLACED.values(), ids=PLACED)
def test_cameras_live_where_the_hardware_is(
    cluster: SimpleNamespace, given: dict[str, Any], nodes: list[Any], expected: dict[str, Any]
) -> None:
    """A real microscope is taken whole, one of software asks for a share, and neither lives on a
    head that is there to keep the cluster together."""
    cluster.found = nodes

    assert capture_placements(validate(given), 1)[0] == expected


@pytest.mark.parametrize(("given", "nodes", "said"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_named(
    cluster: SimpleNamespace, given: dict[str, Any], nodes: list[Any], said: str
) -> None:
    """Without the nodes that it needs a scan ends with one line that says how to start them."""
    cluster.found = nodes

    with pytest.raises(UserMistake) as refused:
        capture_placements(validate(given), 1)[0]

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_node_that_is_about_to_join_is_waited_for(
    cluster: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A microscope whose computer joins within half a minute is no mistake."""
    cluster.found = FARM
    monkeypatch.setattr(nodes, "NODE_WAIT_S", 30.0)
    monkeypatch.setattr(nodes.time, "sleep", lambda _: setattr(cluster, "found", LAB))

    assert capture_placements(validate(ONE), 1)[0] == {"resources": {MICROSCOPE: 1}}


def test_each_microscope_is_placed_where_it_stands(cluster: SimpleNamespace) -> None:
    """Configurations of one name on two computers are two microscopes, each on its own."""
    at = [{"config": "a.cfg", "on": on} for on in ("scope=left", "electrons")]
    settings = validate(REAL | {"microscopes": [*at, "b.cfg"], "capture_on": "scope=right"})
    sides = [node(side, CPU=1) | {"Labels": {"scope": side}} for side in ("left", "right")]
    cluster.found = [node("another", CPU=1, electrons=1), *sides]

    assert capture_placements(settings, 3) == [
        {"label_selector": {"scope": "left"}},
        {"resources": {"electrons": 1}},
        {"label_selector": {"scope": "right"}},
    ]
    assert validate(tomllib.loads(settings.to_toml())) == settings
