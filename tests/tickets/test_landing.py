"""A ticket's work reaches the target only from the commit that was verified."""

from pathlib import Path

from ralph_rpc.git.batch import Part, build_batch
from ralph_rpc.git.merge import Landed, Moved, land
from tests.rig import git


def test_what_others_merged_since_the_look_must_be_verified_first(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "begin")
    seen = git(tmp_path, "rev-parse", "main").strip()
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "by a person")
    moved = git(tmp_path, "rev-parse", "main").strip()
    git(tmp_path, "branch", "work")
    git(tmp_path, "checkout", "-q", "work")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "work")
    built = build_batch(tmp_path, "main", [Part("work", "Merge\n")])
    # The branch contains the new commit, so only the comparison with what was seen can tell.
    assert land(tmp_path, "main", seen, built.links[0].commit, ["work"]) == Moved()
    assert git(tmp_path, "rev-parse", "main").strip() == moved
    assert isinstance(land(tmp_path, "main", moved, built.links[0].commit, ["work"]), Landed)
