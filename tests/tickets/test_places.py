"""Where a ticket's work is done, and what finds its way there: worktrees outside of the project, environment, ports."""

import os
import shutil
import stat
from pathlib import Path

import platformdirs
import pytest

from ralph_rpc.files.paths import LoopPaths, project_key
from tests.rig import fake_rig, git, wait_for
from tests.ticket_rig import MARKER, does, fake_tickets, hold

pytestmark = pytest.mark.usefixtures("no_leftovers")


def test_worktrees_lie_in_the_user_s_data_folder_and_nothing_of_them_stays(tmp_path: Path) -> None:
    base = platformdirs.user_data_path("ralph-rpc") / "worktrees"
    rig = fake_tickets(tmp_path, {"t-1": [does(f"pwd > {tmp_path}/where")]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees")
    rig.check_done("t-1")
    where = Path((tmp_path / "where").read_text().strip())
    assert where == base / project_key(rig.project) / "x" / "t-1"
    assert list(base.iterdir()) == []
    assert stat.S_IMODE(base.stat().st_mode) == 0o700


def test_another_folder_for_them_is_used_if_it_is_named(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(f"pwd > {tmp_path}/where")]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees", "--worktrees-dir", str(tmp_path / "fast disk"))
    rig.check_done("t-1")
    assert (tmp_path / "where").read_text().startswith(f"{tmp_path}/fast disk/{project_key(rig.project)}/x/t-1")


def test_a_loop_whose_worktrees_an_older_version_made_in_the_project_goes_on_with_them(tmp_path: Path) -> None:
    once = f"[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; {hold()}; }}"
    rig = fake_tickets(tmp_path, {"t-1": [does("echo precious >> kept.txt", once)]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees")
    rig.wait_held("t-1")
    rig.kill_runner()
    wait_for("the end of its processes", lambda: not rig.of_mine())
    now, old = rig.paths.worktrees() / "t-1", rig.paths.old_worktrees / "t-1"
    old.parent.mkdir()
    git(rig.project, "worktree", "unlock", str(now))
    git(rig.project, "worktree", "move", str(now), str(old))
    record = rig.paths.tickets / "t-1.json"
    record.write_text(record.read_text().replace(str(now), str(old)))
    rig.resume()
    rig.check_done("t-1")
    assert rig.on_main("kept.txt") == "precious\nprecious\n" and not old.exists()


def test_a_project_that_was_moved_finds_its_worktrees_again(tmp_path: Path) -> None:
    once = f"[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; {hold()}; }}"
    rig = fake_tickets(tmp_path, {"t-1": [does("echo precious >> kept.txt", once)]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees")
    rig.wait_held("t-1")
    rig.kill_runner()
    wait_for("the end of its processes", lambda: not rig.of_mine())
    moved = rig.project.rename(tmp_path / "moved")
    rig.project, rig.paths = moved, LoopPaths.of(moved, "x")
    told = rig.run("doctor", check=None).stdout
    assert "belongs to a project that is no longer where it was" in told
    rig.run("trust", "x")  # for all that is known here, somebody else has put it there
    rig.run("resume", "x")
    rig.check_done("t-1")
    assert rig.on_main("kept.txt") == "precious\nprecious\n"


def test_clean_and_doctor_find_worktrees_outside_of_the_project(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [[{"tool": "bash", "run": "echo mine > own.txt"}, "no"]]})
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees", "--attempts", "1")
    rig.wait_end()
    worktree = rig.paths.worktrees() / "t-1"
    kept = rig.run("clean", "x", "--yes", check=None)
    assert "2 uncommitted files (t-1)" in kept.stdout + kept.stderr and (worktree / "own.txt").exists()
    shutil.rmtree(rig.paths.dir)
    told = rig.run("doctor", check=None).stdout
    assert f"{worktree} belongs to no loop" in told


def test_nothing_in_the_environment_of_pi_setup_and_verify_leads_into_the_main_checkout(tmp_path: Path) -> None:
    show = f"env > {tmp_path}/%s.$RALPH_TICKET"
    rig = fake_tickets(tmp_path, {"t-1": [does(show % "pi")]})
    rig.add("t-1")
    rig.commit()
    venv = rig.project / ".venv"
    rig.env |= {
        "PATH": f"{venv}/bin:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(venv),
        "PYTHONPATH": f"{rig.project}/src",
        "NODE_PATH": f"/opt/x:{rig.project}/node_modules",
        "GIT_WORK_TREE": "",
    }
    rig.begin("--worktrees", "--worktree-setup", show % "setup", "--verify", show % "verify")
    rig.check_done("t-1")
    for who in ("pi", "setup", "verify"):
        env = dict(line.split("=", 1) for line in (tmp_path / f"{who}.t-1").read_text().splitlines() if "=" in line)
        assert "VIRTUAL_ENV" not in env and "PYTHONPATH" not in env and env["NODE_PATH"] == "/opt/x", who
        leading = {name for name, value in env.items() if f"{rig.project}/" in value or value == str(rig.project)}
        assert leading <= {"RALPH_LOOP_DIR"}, who
    told = [event["message"] for event in rig.of("ralph_notice") if "leads into" in event["message"]]
    assert len(told) == 1 and f"VIRTUAL_ENV ({venv})" in told[0] and "PATH (" in told[0]


def test_an_editable_install_elsewhere_is_named_at_start(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path)
    rig.add("t-1")
    rig.commit()
    packages = tmp_path / "venv/lib/python3.12/site-packages"
    packages.mkdir(parents=True)
    (packages / "shop.pth").write_text(f"{rig.project}/src\n")
    rig.env["VIRTUAL_ENV"] = str(tmp_path / "venv")
    told = rig.begin("--worktrees", "--dry-run").stderr
    assert f"{tmp_path}/venv leads into {rig.project} (shop" in told and "--worktree-setup" in told
    assert "leads into" not in rig.begin("--dry-run").stderr


def test_each_worker_has_a_number_and_ports_of_its_own(tmp_path: Path) -> None:
    note = f'echo "$RALPH_WORKER $RALPH_PORT_BASE" >> {tmp_path}/%s.$RALPH_TICKET${{RALPH_TICKETS+.queue}}'
    held = {id: [does(note % "pi", hold())] for id in ("t-1", "t-2")}
    rig = fake_tickets(tmp_path, {**held, "t-3": [does(note % "pi")]})
    for id in ("t-1", "t-2", "t-3"):
        rig.add(id, id)
    rig.commit()
    rig.begin("--parallel", "2", "--worktree-setup", note % "setup", "--verify", note % "verify")
    rig.wait_held("t-1", "t-2")
    rig.let_go("t-1", "t-2")
    rig.check_done("t-1", "t-2", "t-3")
    seen = {
        id: {line for who in ("pi", "setup", "verify") for line in (tmp_path / f"{who}.{id}").read_text().splitlines()}
        for id in ("t-1", "t-2", "t-3")
    }
    assert all(len(lines) == 1 for lines in seen.values()), seen
    first, second, third = (min(lines).split() for lines in seen.values())
    assert {first[0], second[0]} == {"1", "2"} and third[0] in ("1", "2")
    bases = {int(first[1]), int(second[1])}
    assert len(bases) == 2 and all(base % 100 == 0 and 1024 < base < 32_768 for base in bases)


def test_an_agent_whose_tickets_git_ignores_finds_them_with_tk_s_own_variable(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path, {"t-1": [does(f"echo $TICKETS_DIR > {tmp_path}/seen")]}, tracked=False)
    rig.add("t-1")
    rig.commit()
    rig.begin("--worktrees")
    rig.check_done("t-1")
    assert (tmp_path / "seen").read_text().strip() == str(rig.project / ".tickets")


def test_a_task_loop_in_a_worktree_has_nothing_that_leads_back_either(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": f"env > {tmp_path}/env"}, f"done\n{MARKER}"]])
    rig.env |= {"VIRTUAL_ENV": f"{rig.project}/.venv", "PATH": f"{rig.project}/.venv/bin:{os.environ['PATH']}"}
    rig.start("--worktree", "feature", "--verify", f"test ! -e /x; env > {tmp_path}/verify")
    assert rig.wait_end()["status"] == "completed"
    for who in ("env", "verify"):
        text = (tmp_path / who).read_text()
        assert "VIRTUAL_ENV" not in text and f"{rig.project}/.venv" not in text
    told = [event["message"] for event in rig.of("ralph_notice") if "leads into" in event["message"]]
    assert len(told) == 1 and f"VIRTUAL_ENV ({rig.project}/.venv)" in told[0]
