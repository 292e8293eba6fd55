"""Jobs on Kubernetes: the manifest against the published schema, and kubectl by a stand-in whose cluster is this machine.

No cluster was there to test with.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.launchers import kubernetes_job
from ralph_rpc.launchers.engines import parse
from tests.launchers.test_engine import check_all, engine_rig, no_job_left
from tests.rig import wait_for
from tests.ticket_rig import TicketRig, does

__all__ = ["no_job_left"]
ROOT = Path(__file__).parents[1]
SCHEMA: dict[str, Any] = json.loads((ROOT / "data" / "kubernetes" / "job-1.37.json").read_bytes())
TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": float}
ENGINE = "kubernetes:registry.example/agent:1 namespace=agents secret=keys cpu=2 memory=4Gi limit=8h"


def misfits(value: Any, schema: Any, at: str = "") -> Iterator[str]:
    """Where a value departs from a schema of Kubernetes; what a schema does not name is wrong."""
    if "$ref" in schema:
        yield from misfits(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], at)
        return
    if "oneOf" in schema:
        if all(list(misfits(value, one, at)) for one in schema["oneOf"]):
            yield f"{at}: fits none"
        return
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not isinstance(value, tuple(TYPES[name] for name in types if name != "null")):
        yield f"{at}: no {types[0]}"
        return
    enum: list[Any] = schema.get("enum", [value])
    if not any(value == one for one in enum):
        yield f"{at}: not among {enum}"
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from misfits(one, schema["items"], f"{at}[{number}]")
    if isinstance(value, dict):
        yield from (f"{at}.{key}: is missing" for key in schema.get("required", []) if key not in value)
        for key, one in value.items():
            inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if inner is None:
                yield f"{at}.{key}: unknown"
            else:
                yield from misfits(one, inner, f"{at}.{key}")


@pytest.mark.parametrize("engine", ["kubernetes:img", ENGINE])
def test_the_manifest_fits_the_schema_of_kubernetes(engine: str) -> None:
    made = kubernetes_job.manifest("ralph-x-t-1-1234567890-1", ["ralph-rpc", "work", "t-1"], parse(engine))
    assert list(misfits(made, SCHEMA)) == []


def test_the_check_by_the_schema_can_fail() -> None:
    made = kubernetes_job.manifest("n", ["true"], parse(ENGINE))
    made["spec"]["backofLimit"] = made["spec"].pop("backoffLimit")
    made["spec"]["template"]["spec"]["containers"][0]["command"] = "true"
    del made["spec"]["template"]["spec"]["containers"][0]["name"]
    assert list(misfits(made, SCHEMA)) == [
        ".spec.template.spec.containers[0].name: is missing",
        ".spec.template.spec.containers[0].command: no array",
        ".spec.backofLimit: unknown",
    ]


def test_what_was_said_is_in_the_manifest() -> None:
    made = kubernetes_job.manifest("n", ["a", "b"], parse(ENGINE))
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example/agent:1" and container["command"] == ["a", "b"]
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert made["spec"]["activeDeadlineSeconds"] == 28_800
    assert (made["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert kubernetes_job.where(parse(ENGINE)) == ["--namespace=agents"]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (None, "queued"),
        ({"active": 1}, "queued"),
        ({"active": 1, "ready": 1}, "active"),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, "ended complete"),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, "queued"),
        (
            {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}]},
            "ended failed DeadlineExceeded too long",
        ),
    ],
)
def test_what_a_cluster_tells_of_a_job(status: Any, state: str) -> None:
    assert kubernetes_job.state({"status": status}) == state


def cluster_rig(tmp_path: Path, count: int, scripts: dict[str, Any] | None = None) -> tuple[TicketRig, list[str]]:
    rig, ids = engine_rig(tmp_path, count, scripts)
    folder, bin = tmp_path / "cluster", tmp_path / "bin"
    folder.mkdir()
    bin.mkdir()
    for name, command in {
        "kubectl": f"{sys.executable} -P {ROOT}/launchers/fake_kubectl.py",
        "ralph-rpc": f"{sys.executable} -P -m ralph_rpc",
    }.items():
        (bin / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (bin / name).chmod(0o755)
    rig.env |= {"PATH": f"{bin}:{rig.env['PATH']}", "FAKE_CLUSTER": str(folder)}
    return rig, ids


@pytest.mark.usefixtures("no_leftovers")
def test_jobs_on_a_cluster_do_the_tickets_and_are_removed(tmp_path: Path) -> None:
    rig, ids = cluster_rig(tmp_path, 2)
    rig.begin("--engine", "kubernetes:img", "--hub", f"file://{rig.project}", "--parallel", "2")
    rig.wait_end(180)
    check_all(rig, ids)
    wait_for("no Job left", lambda: not list((tmp_path / "cluster").glob("*.json")))


@pytest.mark.usefixtures("no_leftovers")
def test_jobs_on_a_cluster_end_with_the_loop(tmp_path: Path) -> None:
    steps = [{"tool": "bash", "run": "touch $HOME/at; sleep 1000"}, "never said"]
    rig, _ = cluster_rig(tmp_path, 1, {"usual": [steps]})
    rig.begin("--engine", "kubernetes:img", "--hub", f"file://{rig.project}")
    wait_for(f"the agent\n{rig.log()}", (Path(rig.env["HOME"]) / "at").exists, 120)
    rig.run("stop", "x", "--now")
    assert rig.wait_end(120)["status"] == "stopped"
    assert [record["outcome"] for record in rig.records()] == ["aborted"]
    assert not list((tmp_path / "cluster").glob("*.json"))


def test_what_cannot_work_on_a_cluster_is_refused(tmp_path: Path) -> None:
    rig, _ = cluster_rig(tmp_path, 1, {"usual": [does()]})
    told = rig.begin("--engine", "kubernetes:img", check=2).stderr
    assert "needs a --hub that its pods can reach" in told
    assert "needs an image" in rig.begin("--engine", "kubernetes", check=2).stderr
    refused = rig.begin("--engine", "kubernetes:nosuch/image!", "--hub", f"file://{rig.project}", check=None)
    assert "Invalid value" in rig.wait_end()["error"], refused
