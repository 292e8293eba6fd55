"""The registry: names that collide, files that are no entries, runners that are gone."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from ralph_rpc.clock import iso, now_ms
from ralph_rpc.files import registry
from ralph_rpc.files.paths import registry_dir
from ralph_rpc.machine import identity
from ralph_rpc.model.registry import RegistryEntry


def entry(cwd: Path | str, name: str = "loop", pid: int = 4711) -> RegistryEntry:
    return {
        "pid": pid,
        "pidStartTime": 5.0,
        "bootId": "boot",
        "cwd": str(cwd),
        "ralphDir": f"{cwd}/.ralph/{name}",
        "name": name,
        "kind": "task",
        "startedAt": iso(now_ms()),
        "lastSeen": iso(now_ms()),
        "status": "running",
        "iteration": 1,
        "maxIterations": 50,
        "model": None,
        "provider": None,
        "cost": 0,
    }


def listed() -> list[tuple[str, str]]:
    found, broken = registry.entries()
    assert broken == []
    return sorted((f.entry["cwd"], f.entry["name"]) for f in found)


def test_without_a_registry_there_are_no_loops() -> None:
    assert registry.entries() == ([], [])


def test_an_entry_is_published_under_the_projects_slug_and_removed() -> None:
    path = registry.publish(None, entry("/srv/app"))
    assert path == registry_dir() / "--srv-app--loop.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert registry.publish(path, {**entry("/srv/app"), "iteration": 2}) == path
    found, broken = registry.entries()
    assert [(f.path, f.entry["iteration"]) for f in found] == [(path, 2)]
    assert broken == []
    registry.remove(path)
    registry.remove(path)
    assert listed() == []


def test_projects_of_the_same_slug_have_files_of_their_own() -> None:
    first = registry.publish(None, entry("/a-b/c"))
    second = registry.publish(None, entry("/a/b-c"))
    third = registry.publish(None, entry("/a/b/c"))
    assert first.name == "--a-b-c--loop.json"
    assert len({first, second, third}) == 3
    assert second.name.startswith("--a-b-c~") and len(second.name) == len(first.name) + 9
    assert listed() == [("/a-b/c", "loop"), ("/a/b-c", "loop"), ("/a/b/c", "loop")]
    for path, cwd in ((first, "/a-b/c"), (second, "/a/b-c"), (third, "/a/b/c")):
        assert registry.entry_path(Path(cwd), "loop") == path
        assert registry.publish(path, entry(cwd)) == path


def test_a_loop_keeps_its_file_when_the_plain_name_becomes_free() -> None:
    first = registry.publish(None, entry("/a-b/c"))
    second = registry.publish(None, entry("/a/b-c"))
    registry.remove(first)
    assert registry.publish(None, entry("/a/b-c")) == second
    assert listed() == [("/a/b-c", "loop")]


def test_two_loops_that_took_the_same_file_at_once_both_come_back() -> None:
    path = registry.publish(None, entry("/a-b/c"))
    path.write_bytes(orjson.dumps(entry("/a/b-c")))  # the other one saw it free at the same instant
    moved = registry.publish(path, entry("/a-b/c"))
    assert moved != path
    assert listed() == [("/a-b/c", "loop"), ("/a/b-c", "loop")]


def test_loops_of_one_project_are_kept_apart() -> None:
    for name in ("a", "b", "a--b", "x" * 64):
        registry.publish(None, entry("/srv/app", name))
    # "--srv-app--a--b.json" is also loop b of a project /srv/app--a
    registry.publish(None, entry("/srv/app--a", "b"))
    assert listed() == [
        ("/srv/app", "a"),
        ("/srv/app", "a--b"),
        ("/srv/app", "b"),
        ("/srv/app", "x" * 64),
        ("/srv/app--a", "b"),
    ]


@pytest.mark.parametrize("length", [170, 171, 172, 179, 180, 181, 500, 3000])
@pytest.mark.parametrize("letter", ["a", "ü"])
def test_long_paths_are_cut_to_names_that_every_file_system_takes(length: int, letter: str) -> None:
    cwds = ["/" + letter * (length // len(letter.encode())) + tail for tail in ("/b", "-b")]
    paths = [registry.publish(None, entry(cwd, "n" * 64)) for cwd in cwds]
    assert len(set(paths)) == 2
    assert [registry.publish(path, entry(cwd, "n" * 64)) for path, cwd in zip(paths, cwds, strict=True)] == paths
    assert [registry.entry_path(Path(cwd), "n" * 64) for cwd in cwds] == paths
    assert max(len(os.fsencode(path.name)) for path in paths) <= 255
    assert len(listed()) == 2


def test_the_real_path_of_a_project_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert registry.entry_path(tmp_path / "link", "a") == registry.entry_path(tmp_path / "real", "a")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0" * 9])
def test_a_file_that_names_nobody_is_replaced(content: bytes) -> None:
    path = registry.entry_path(Path("/srv/app"), "loop")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert registry.publish(None, entry("/srv/app")) == path
    assert listed() == [("/srv/app", "loop")]


def test_a_folder_in_the_place_of_the_file_is_avoided() -> None:
    path = registry.entry_path(Path("/srv/app"), "loop")
    path.mkdir(parents=True)
    assert registry.publish(None, entry("/srv/app")) != path
    found, broken = registry.entries()
    assert (len(found), [b.path for b in broken]) == (1, [path])


def test_broken_files_are_reported_and_hide_no_loop() -> None:
    registry.publish(None, entry("/srv/app"))
    bad: dict[str, bytes] = {
        "--empty.json": b"",
        "--nul.json": b"\0" * 100,
        "--list.json": b"[]",
        "--deep.json": b"[" * 100_000,
        "--nothing.json": b"{}",
    }
    for member in entry("/x"):
        bad[f"--no-{member}.json"] = orjson.dumps({k: v for k, v in entry("/x").items() if k != member})
        bad[f"--wrong-{member}.json"] = orjson.dumps({**entry("/x"), member: ["x"]})
    bad["--bool.json"] = orjson.dumps({**entry("/x"), "pid": True})
    bad["--tree.json"] = orjson.dumps({**entry("/x"), "worktree": {"branch": 1}})
    for name, content in bad.items():
        (registry_dir() / name).write_bytes(content)
    os.mkfifo(registry_dir() / "--fifo.json")
    (registry_dir() / "--link.json").symlink_to("/etc/passwd")
    (registry_dir() / "notes.txt").write_text("not ours")
    (registry_dir() / ".tmp-0123.json").write_text("half")
    found, broken = registry.entries()
    assert [f.entry["cwd"] for f in found] == ["/srv/app"]
    assert {b.path.name for b in broken} == {*bad, "--fifo.json", "--link.json"}
    assert all(b.reason and "\n" not in b.reason for b in broken)


def test_members_that_are_not_known_are_ignored() -> None:
    path = registry.publish(None, entry("/srv/app"))
    path.write_bytes(
        orjson.dumps({**entry("/srv/app"), "later": {"more": 1}, "worktree": {"branch": "b", "path": "p"}})
    )
    assert len(listed()) == 1


def test_liveness_tells_alive_stale_and_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        start = identity.start_time(child.pid)
        assert start is not None
        running = {**entry("/srv/app", pid=child.pid), "pidStartTime": start, "bootId": identity.boot_id()}
        alive: RegistryEntry = running  # type: ignore[assignment]  # mypy can't see through the unpacking
        assert registry.liveness(alive) == "alive"
        assert registry.liveness({**alive, "lastSeen": iso(now_ms() - 29_000)}) == "alive"
        assert registry.liveness({**alive, "lastSeen": iso(now_ms() - 31_000)}) == "stale"
        assert registry.liveness({**alive, "lastSeen": "?"}) == "stale"
        assert registry.liveness({**alive, "pidStartTime": start + 1}) == "dead"
        assert registry.liveness({**alive, "bootId": "another"}) == "dead"
        for pid in (1, 0, -1):
            assert registry.liveness({**alive, "pid": pid}) == "dead"
        child.kill()
    assert registry.liveness(alive) == "dead"
