"""A `kubectl` whose cluster is this machine: a Job is a process of its first container, a folder has the manifests.

Stands first on the PATH of a test, run by Python. FAKE_CLUSTER names the folder. It knows what `jobs_by_kubectl` says.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

FOLDER = Path(os.environ["FAKE_CLUSTER"])


def create() -> int:
    made = json.load(sys.stdin)
    name = made["metadata"]["name"]
    place = FOLDER / f"{name}.json"
    if place.exists():
        print(f'Error from server (AlreadyExists): jobs.batch "{name}" already exists', file=sys.stderr)
        return 1
    (container,) = made["spec"]["template"]["spec"]["containers"]
    if container["image"] == "nosuch/image!":
        print("The Job is invalid: spec.template.spec.containers[0].image: Invalid value", file=sys.stderr)
        return 1
    env = {key: os.environ[key] for key in ("PATH", "HOME", "PI_CODING_AGENT_DIR") if key in os.environ}
    env |= {one["name"]: one["value"] for one in container["env"]} | {"TMPDIR": os.environ["TMPDIR"]}
    with (FOLDER / f"{name}.log").open("wb") as log:
        pod = subprocess.Popen(
            container["command"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    made["pid"] = pod.pid
    place.write_text(json.dumps(made))
    return 0


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def get() -> int:
    items = []
    for path in FOLDER.glob("*.json"):
        job = json.loads(path.read_text())
        if path.with_suffix(".going").exists() and not lives(job["pid"]):
            path.unlink()
            continue
        over = {"conditions": [{"type": "Complete", "status": "True"}]}
        items.append({**job, "status": {"active": 1, "ready": 1} if lives(job["pid"]) else over})
    print(json.dumps({"items": items}))
    return 0


def main(words: list[str]) -> int:
    verb, *rest = [word for word in words if not word.startswith(("--context=", "--namespace="))]
    match verb:
        case "create":
            return create()
        case "get":
            return get()
        case "logs":
            with suppress(OSError):
                print((FOLDER / f"{rest[0].removeprefix('job/')}.log").read_text())
            return 0
        case _:
            place = FOLDER / f"{rest[1]}.json"
            with suppress(OSError):
                pod = json.loads(place.read_text())["pid"]
                if lives(pod) and "--cascade=foreground" in rest:
                    (FOLDER / f"{rest[1]}.going").touch()
                else:
                    place.unlink()
                os.kill(pod, signal.SIGTERM)
            return 0


sys.exit(main(sys.argv[1:]))
