"""The manifest for KubeRay: what its CRD takes, and what the program and the cluster page say."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from cluster.nodes import MICROSCOPE
from cluster.workers import MAX_PREFAULT_BYTES
from command.command_line import parse

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "kubernetes"
Node = Any  # of a YAML document
UNITS = {"": 1, "Gi": 2**30, "Ti": 2**40}


def read(path: Path) -> Node:
    """A YAML document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


JOB = read(FOLDER / "rayjob.yaml")
CRD = jsonschema.Draft202012Validator(read(Path(__file__).with_name("rayjob_schema.yaml")))
CLUSTER = JOB["spec"]["rayClusterSpec"]
GROUPS = {"head": CLUSTER["headGroupSpec"]} | {
    group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]
}
PODS = {name: group["template"]["spec"] for name, group in GROUPS.items()}
every_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
every_group = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)


def the(pod: Node) -> Node:
    """Ray's container, which KubeRay takes to be the first."""
    return pod["containers"][0]


def options() -> list[str]:
    """What the entrypoint gives to the program."""
    python, script, *given = shlex.split(JOB["spec"]["entrypoint"])
    assert (python, PurePosixPath(script).name) == ("python", "main.py")
    return given


def bytes_of(quantity: str) -> int:
    """A quantity of Kubernetes in bytes."""
    number, unit = re.findall(r"^(\d+)(\w*)$", quantity)[0]
    return int(number) * UNITS[unit]


# ---------------------------------------------------------------------------------- the CRD


def test_the_schema_is_one() -> None:
    """What the manifest is checked against is itself a valid schema."""
    jsonschema.Draft202012Validator.check_schema(CRD.schema)


def test_the_crd_takes_the_manifest() -> None:
    """No field is unknown, of another type, or missing."""
    assert [error.message for error in CRD.iter_errors(JOB)] == []


def renamed(*path: str | int, to: str) -> Callable[[Node], None]:
    """A manifest in which the last name of a path is another."""

    def change(job: Node) -> None:
        *before, last = path
        for key in before:
            job = job[key]
        job[to] = job.pop(last)

    return change


def put(*path: str | int, value: Node) -> Callable[[Node], None]:
    """A manifest in which something else stands at a path."""

    def change(job: Node) -> None:
        *before, last = path
        for key in before:
            job = job[key]
        job[last] = value

    return change


RAY = ("spec", "rayClusterSpec")
WORKERS = (*RAY, "workerGroupSpecs", 0)
POD = (*WORKERS, "template", "spec")
RAYS = (*POD, "containers", 0)
MISTAKES = {
    "old version": put("apiVersion", value="ray.io/v1alpha1"),
    "another kind": put("kind", value="RayCluster"),
    "entry point": renamed("spec", "entrypoint", to="entryPoint"),
    "shutdown misspelt": renamed("spec", "shutdownAfterJobFinishes", to="shutdownAfterJobFinished"),
    "cluster of a service": renamed("spec", "rayClusterSpec", to="rayClusterConfig"),
    "no such submission": put("spec", "submissionMode", value="PodMode"),
    "authentication outside the cluster": put("spec", "authOptions", value={"mode": "token"}),
    "authentication misspelt": renamed(*RAY, "authOptions", "mode", to="type"),
    "no such authentication": put(*RAY, "authOptions", "mode", value="password"),
    "no head": renamed(*RAY, "headGroupSpec", to="headGroup"),
    "workers misspelt": renamed(*RAY, "workerGroupSpecs", to="workerGroups"),
    "group without a name": renamed(*WORKERS, "groupName", to="name"),
    "number for a start parameter": put(
        *RAY, "headGroupSpec", "rayStartParams", "num-cpus", value=0
    ),
    "text for replicas": put(*WORKERS, "replicas", value="3"),
    "no containers": renamed(*POD, "containers", to="container"),
    "mount without a path": renamed(*RAYS, "volumeMounts", 0, "mountPath", to="path"),
    "number in the environment": put(*RAYS, "env", 0, "value", value=0),
    "size that is none": put(*POD, "volumes", 1, "emptyDir", "sizeLimit", value="9 GB"),
    "claim misspelt": renamed(*POD, "volumes", 0, "persistentVolumeClaim", "claimName", to="name"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_crd_refuses_mistakes(mistake: Callable[[Node], None]) -> None:
    """A manifest with one mistake is refused."""
    job = copy.deepcopy(JOB)

    mistake(job)

    assert not CRD.is_valid(job)


# ------------------------------------------------------------------------------------ the pods


@every_pod
def test_every_mount_has_its_volume(pod: Node) -> None:
    """What a container mounts is a volume of its pod, each once, and none is left over."""
    volumes = [volume["name"] for volume in pod["volumes"]]
    mounted = [mount["name"] for mount in the(pod)["volumeMounts"]]

    assert sorted(mounted) == sorted(set(volumes)) == sorted(volumes)


@every_pod
def test_results_go_to_the_volume_that_all_nodes_share(pod: Node) -> None:
    """--out lies under the mounted claim, on every node; the claim is that of volume.yaml."""
    claim = read(FOLDER / "volume.yaml")
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    places = [m["mountPath"] for m in the(pod)["volumeMounts"] if m["name"] in claims]
    out = parse(options()).out

    assert out
    assert [out.is_relative_to(place) for place in places] == [True]
    assert set(claims.values()) == {claim["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@every_group
def test_the_object_store_lies_in_memory(group: Node) -> None:
    """/dev/shm holds the object store, and the pod has as much again for its processes."""
    pod = group["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in the(pod)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    memory = volumes[mounts["/dev/shm"]]["emptyDir"]
    store = int(group["rayStartParams"]["object-store-memory"])

    assert memory["medium"] == "Memory"
    assert MAX_PREFAULT_BYTES <= store <= bytes_of(memory["sizeLimit"])
    resources = the(pod)["resources"]
    assert bytes_of(resources["requests"]["memory"]) >= store + bytes_of("4Gi")
    assert resources["limits"] == resources["requests"]


def test_object_stores_are_of_one_size() -> None:
    """The smallest decides how many batches may be in flight."""
    assert len({group["rayStartParams"]["object-store-memory"] for group in GROUPS.values()}) == 1


@every_pod
def test_cameras_come_before_stacking(pod: Node) -> None:
    """Every raylet starts its workers at niceness 0, and lets them stay."""
    variables = {each["name"]: each["value"] for each in the(pod)["env"]}

    assert variables == {
        "RAY_worker_niceness": "0",
        "RAY_idle_worker_killing_time_threshold_ms": "3600000",
    }


# ------------------------------------------------------------------------------- the program


def test_the_program_takes_the_options() -> None:
    """The entrypoint is a call of the program, with one line per event for the log."""
    call = parse(options())

    assert call.plain
    assert call.settings == parse([]).settings


def test_the_image_has_the_program_and_a_ray_that_fits() -> None:
    """One image for all pods, of the version that KubeRay is given and requirements.txt allows."""
    (image,) = {the(pod)["image"] for pod in PODS.values()}
    ray, python = re.findall(r"^rayproject/ray:([\d.]+)-py3(\d+)$", image)[0]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    (floor,) = (Requirement(line.split("#")[0]) for line in lines if line.startswith("ray>"))
    built = (FOLDER / "Dockerfile").read_text()

    assert ray in floor.specifier
    assert ray == CLUSTER["rayVersion"]
    assert int(python) >= 11
    assert f"FROM {image}\n" in built
    (folder,) = re.findall(r"^WORKDIR (.+)$", built, re.MULTILINE)
    assert shlex.split(JOB["spec"]["entrypoint"])[1] == f"{folder}/main.py"


def test_the_cameras_find_their_computer() -> None:
    """One group has the resource that cameras ask for, quoted for the shell as KubeRay wants it."""
    asked = {
        name: json.loads(shlex.split(group["rayStartParams"].get("resources", "{}"))[0])
        for name, group in GROUPS.items()
    }

    assert asked == {"head": {}, "compute": {}, "microscope": {MICROSCOPE: 1}}
    assert PODS["microscope"]["nodeSelector"]


def test_the_head_takes_no_work() -> None:
    """The driver's node has no CPU slots; others have some for stacking."""
    cpus = {name: group["rayStartParams"].get("num-cpus") for name, group in GROUPS.items()}

    assert cpus == {"head": "0", "compute": None, "microscope": "1"}


def test_tokens_are_asked_for() -> None:
    """KubeRay makes a token for the cluster; without one anybody could run code there."""
    assert CLUSTER["authOptions"] == {"mode": "token"}
