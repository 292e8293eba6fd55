"""What cannot be done by jobs on an engine: one line each, before anything is started where that can be known."""

import os
from pathlib import Path

import pytest

from ralph_rpc.launchers import engine_link, engines
from ralph_rpc.launchers.engines import Engine, lacks, parse
from tests.launchers.slurm import Slurm
from tests.launchers.test_engine import cluster, engine_rig, needs_psij, needs_slurm, no_job_left
from tests.rig import git
from tests.ticket_rig import does

__all__ = ["cluster", "no_job_left"]
pytestmark = pytest.mark.usefixtures("no_leftovers")


def test_engines_are_understood() -> None:
    assert parse("slurm") == Engine("slurm", "", {})
    assert parse("slurm:partition=cpu 'comment=two words'").words == {"partition": "cpu", "comment": "two words"}
    assert parse("kubernetes:img:1 cpu=2").image == "img:1"
    for text in ("local", "lsf:queue=q", "kubernetes:img:1 namespace=n", "slurm:'comment=two words'"):
        assert engines.text(parse(text)) == engines.text(parse(engines.text(parse(text))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("condor", "expected local, slurm, pbs, lsf, flux, kubernetes"),
        ("slurm:cpu", "expected KEY=VALUE"),
        ("slurm:--partition=cpu", "expected KEY=VALUE"),
        ("slurm:duration=long", "expected a time such as 30m or 8h"),
        ("slurm:comment='two", "No closing quotation"),
        ("kubernetes", "needs an image"),
        ("kubernetes:cpu=2", "needs an image"),
        ("kubernetes:img gpu=1", "kubernetes knows namespace"),
    ],
)
def test_what_is_no_engine_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="^.*" + said.replace("[", "\\[")):
        parse(text)


def test_what_is_missing_here_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert lacks(parse("local")) == (
        "the engine needs PSI/J, which is not installed",
        "pip install 'ralph-rpc[cluster]'",
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert lacks(parse("local")) is None
    for kind, program in (("slurm", "sbatch"), ("pbs", "qsub"), ("lsf", "bsub"), ("kubernetes:img", "kubectl")):
        missing = lacks(parse(kind))
        assert missing is not None and program in missing[0]


@needs_psij
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--launcher", "srun"], "--engine and --launcher exclude each other"),
        (["--hosts", "a:2"], "--engine and --hosts exclude each other"),
        (["--launcher-env", "KEY"], "--engine and --launcher-env exclude each other"),
        (["--worktree-copy", ".env"], "--engine and --worktree-copy exclude each other"),
        (["--no-worktrees"], "--engine and --no-worktrees exclude each other"),
        (["--hub", "/nowhere/at/all.git"], "nothing can be pushed there"),
        (["--hub", "file:///nowhere"], "nothing can be pushed there"),
    ],
)
def test_what_cannot_go_together_is_refused_before_anything_starts(
    tmp_path: Path, options: list[str], said: str
) -> None:
    rig, _ = engine_rig(tmp_path, 1)
    rig.env["KEY"] = "k"
    told = rig.begin("--engine", "local", *options, check=2).stderr
    assert said in told and told.count("\n") == 1 and "Traceback" not in told, told
    assert not rig.paths.dir.exists()


@needs_psij
def test_an_engine_is_for_tickets_and_a_hub_for_an_engine(tmp_path: Path) -> None:
    rig, _ = engine_rig(tmp_path, 1)
    assert "--engine is for ticket loops" in rig.start("--engine", "local", check=2).stderr
    assert "--hub needs --engine" in rig.begin("--hub", str(tmp_path), check=2).stderr


@needs_psij
def test_a_hub_that_takes_nothing_and_a_repository_without_a_commit_are_refused(tmp_path: Path) -> None:
    rig, _ = engine_rig(tmp_path, 1)
    hub = tmp_path / "hub.git"
    git(tmp_path, "init", "--quiet", "--bare", str(hub))
    hook = hub / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho not here >&2; exit 1\n")
    hook.chmod(0o755)
    assert "nothing can be pushed there" in rig.begin("--engine", "local", "--hub", str(hub), check=2).stderr
    git(rig.project, "checkout", "--quiet", "--orphan", "unborn")
    assert "no commit yet" in rig.begin("--engine", "local", check=2).stderr


@needs_psij
def test_the_engine_of_a_loop_cannot_be_changed(tmp_path: Path) -> None:
    rig, _ = engine_rig(tmp_path, 1, {"usual": [does("exit 1"), "never"]})
    rig.begin("--engine", "local")
    rig.run("stop", "x", "--now")
    rig.wait_end(120)
    assert "cannot be changed" in rig.run("resume", "x", "--engine", "slurm", check=2).stderr


@needs_slurm
def test_what_slurm_refuses_ends_the_loop_with_its_words(tmp_path: Path, cluster: Slurm) -> None:
    rig, _ = engine_rig(tmp_path, 2)
    rig.env |= cluster.env
    told = rig.begin("--engine", "slurm:partition=nosuch", check=1)
    state = rig.wait_end(120)
    assert state["status"] == "error" and "nvalid partition" in state["error"], state["error"]
    assert "nvalid partition" in told.stdout + told.stderr
    assert not cluster.queue() and git(rig.project, "for-each-ref", "refs/ralph") == ""


def test_no_key_of_the_environment_is_in_what_an_engine_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "canary-4711")
    monkeypatch.setenv("RALPH_NOTIFY", "canary-4711")
    line = engine_link.submit("n", ["a"], Path("/o"))
    assert b"canary" not in line and os.environ["PATH"].encode() in line
