"""The manifest of a Job on Kubernetes that works on one ticket. Pure; applied by `jobs_by_kubectl`.

A Job for each submission, not one Indexed Job for all: which tickets may start is known one by one, the number of
indexes is fixed when a Job is made, and each has to be told apart, called off and counted alone. Nothing is tried again
there: the head decides about that, by what the hub has.
"""

from collections.abc import Sequence
from typing import Any

from ralph_rpc.launchers.engines import Engine, seconds

LABEL = "app.kubernetes.io/managed-by"
OURS = "ralph-rpc"
GRACE_S = 60
"""From the signal to end to the end by force: for the record to be pushed."""
KEPT_S = 86_400
"""A Job that is over is removed by the cluster after this, where nobody else does it."""
WORK = "/work"


def manifest(name: str, argv: Sequence[str], engine: Engine) -> dict[str, Any]:
    """What `kubectl create` gets. `name` is fit for Kubernetes."""
    words = engine.words
    container: dict[str, Any] = {
        "name": "work",
        "image": engine.image,
        "command": list(argv),
        "env": [{"name": "TMPDIR", "value": WORK}],
        "volumeMounts": [{"name": "work", "mountPath": WORK}],
    }
    if "secret" in words:
        container["envFrom"] = [{"secretRef": {"name": words["secret"]}}]
    if amounts := {key: words[key] for key in ("cpu", "memory") if key in words}:
        container["resources"] = {"requests": amounts, "limits": amounts}
    spec: dict[str, Any] = {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": KEPT_S,
        "template": {
            "metadata": {"labels": {LABEL: OURS}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": GRACE_S,
                "automountServiceAccountToken": False,
                "containers": [container],
                "volumes": [{"name": "work", "emptyDir": {}}],
            },
        },
    }
    if "limit" in words:
        spec["activeDeadlineSeconds"] = seconds(words["limit"])
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": {LABEL: OURS}}, "spec": spec}


def state(job: dict[str, Any]) -> str:
    """Of a Job as the cluster tells it: queued, active, or ended, with its reason."""
    status = job.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            told = [condition["type"].lower(), condition.get("reason"), condition.get("message")]
            return "ended " + " ".join(str(word) for word in told if word)
    return "active" if status.get("ready") else "queued"


def where(engine: Engine) -> list[str]:
    """The words of kubectl that say which cluster and which namespace."""
    return [f"--{key}={engine.words[key]}" for key in ("context", "namespace") if key in engine.words]
