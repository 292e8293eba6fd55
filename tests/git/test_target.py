"""The target of a ticket loop: what it is, and what is refused before anything is made."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ralph_rpc.errors import UsageError
from ralph_rpc.git.merge import Landed
from ralph_rpc.git.target import Target, check_target
from tests.git.ticketing import Ticket

from .conftest import Repo, new_repo

LFS = """\
#!/bin/sh
store=$(git rev-parse --git-common-dir)/stored
mkdir -p "$store"
case $1 in
  version) echo git-lfs/3 ;;
  clean) cat > "$store/new"; id=$(git hash-object "$store/new"); mv "$store/new" "$store/$id"; echo "pointer $id" ;;
  smudge) read -r word id; cat "$store/$id" ;;
esac
"""


def test_the_target_is_the_branch_that_is_checked_out_or_the_one_that_is_named(repo: Repo) -> None:
    tip = repo.git("rev-parse", "HEAD")
    assert check_target(repo.path, None) == Target(repo.path, "main", tip)
    repo.git("branch", "release/1")
    repo.git("tag", "release/1")
    ahead = repo.commit("b.txt", "b\n")
    assert check_target(repo.path, "release/1") == Target(repo.path, "release/1", tip)
    repo.git("checkout", "-q", "--detach")
    assert check_target(repo.path, "main").head == ahead
    folder = repo.path / "packages/one"
    folder.mkdir(parents=True)
    assert check_target(folder, "main").top == repo.path


def no_repository(repo: Repo) -> tuple[Path, str | None, str]:
    folder = repo.path.parent / "bare folder"
    folder.mkdir()
    return folder, None, "not a git repository"


def no_commit(repo: Repo) -> tuple[Path, str | None, str]:
    return new_repo(repo.path.parent / "empty").path, None, "no commit yet"


def on_no_branch(repo: Repo) -> tuple[Path, str | None, str]:
    repo.git("checkout", "-q", "--detach")
    return repo.path, None, "is not on a branch"


def no_such_branch(repo: Repo) -> tuple[Path, str | None, str]:
    repo.git("tag", "v1")
    return repo.path, "v1", "no branch 'v1'"


def bare(repo: Repo) -> tuple[Path, str | None, str]:
    repo.git("clone", "-q", "--bare", ".", "../bare.git")
    return repo.path.parent / "bare.git", "main", "bare repository"


def inside_of_the_git_folder(repo: Repo) -> tuple[Path, str | None, str]:
    return repo.path / ".git", "main", "in .git"


def git_folder_elsewhere(repo: Repo) -> tuple[Path, str | None, str]:
    repo.git("clone", "-q", "--separate-git-dir", "../apart.git", ".", "../apart")
    return repo.path.parent / "apart", None, "apart from its git repository"


def submodule(repo: Repo) -> tuple[Path, str | None, str]:
    library = new_repo(repo.path.parent / "library")
    library.commit("x", "x")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.path), "libs/one")
    repo.git("commit", "-qm", "with a library")
    return repo.path, None, "submodules"


def merging(repo: Repo) -> tuple[Path, str | None, str]:
    repo.git("checkout", "-qb", "side")
    repo.commit("a.txt", "side\n")
    repo.git("checkout", "-q", "main")
    repo.commit("a.txt", "main\n")
    with pytest.raises(subprocess.CalledProcessError):
        repo.git("merge", "-q", "side")
    return repo.path, None, "a merge is under way"


def picking(repo: Repo) -> tuple[Path, str | None, str]:
    merging(repo)
    repo.git("merge", "--abort")
    with pytest.raises(subprocess.CalledProcessError):
        repo.git("cherry-pick", "side")
    return repo.path, None, "a cherry-pick is under way"


def rebasing(repo: Repo) -> tuple[Path, str | None, str]:
    merging(repo)
    repo.git("merge", "--abort")
    with pytest.raises(subprocess.CalledProcessError):
        repo.git("rebase", "-q", "side")
    return repo.path, None, "a rebase is under way"


def rebasing_though_named(repo: Repo) -> tuple[Path, str | None, str]:
    rebasing(repo)
    return repo.path, "main", "a rebase of main is under way"


def bisecting(repo: Repo) -> tuple[Path, str | None, str]:
    repo.git("bisect", "start")
    return repo.path, None, "a bisect is under way"


def lfs_without_its_program(repo: Repo) -> tuple[Path, str | None, str]:
    repo.commit("assets/.gitattributes", "*.png filter=lfs diff=lfs merge=lfs -text\n")
    repo.git("config", "filter.lfs.smudge", "git-lfs smudge")
    return repo.path, None, "git LFS"


def nobody(repo: Repo) -> tuple[Path, str | None, str]:
    repo.git("config", "--global", "--unset", "user.email")
    return repo.path, None, "no author for commits"


@pytest.mark.parametrize(
    "situation",
    [
        no_repository,
        no_commit,
        on_no_branch,
        no_such_branch,
        bare,
        inside_of_the_git_folder,
        git_folder_elsewhere,
        submodule,
        merging,
        picking,
        rebasing,
        rebasing_though_named,
        bisecting,
        lfs_without_its_program,
        nobody,
    ],
)
def test_a_target_that_cannot_be_is_refused_in_one_line_before_anything_is_made(
    repo: Repo, situation: Callable[[Repo], tuple[Path, str | None, str]]
) -> None:
    project, into, said = situation(repo)
    before = {path for path in repo.path.parent.rglob("*") if "objects" not in path.parts}
    with pytest.raises(UsageError) as refused:
        check_target(project, into)
    assert said in refused.value.message and refused.value.hint
    assert "\n" not in refused.value.message + refused.value.hint
    assert {path for path in repo.path.parent.rglob("*") if "objects" not in path.parts} == before


@pytest.mark.parametrize("program", ["#!/bin/sh\necho git version 2.37.9\n", None], ids=["old", "missing"])
def test_an_old_git_or_none_is_refused(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    if program is not None:
        (folder / "git").write_text(program)
        (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(UsageError, match="older than 2.38" if program else "not installed"):
        check_target(repo.path, None)


def test_a_merge_in_another_checkout_is_no_reason(repo: Repo) -> None:
    repo.git("worktree", "add", "-q", "-b", "second", "../second")
    second = Repo(repo.path.parent / "second")
    merging(repo)
    repo.git("merge", "--abort")
    second.git("merge", "-q", "side")
    with pytest.raises(subprocess.CalledProcessError):
        second.git("merge", "-q", "main")
    assert check_target(repo.path, None).branch == "main"


def test_a_shallow_clone_is_fine(repo: Repo) -> None:
    for number in range(3):
        repo.commit("a.txt", f"{number}\n")
    repo.git("clone", "-q", "--depth=1", f"file://{repo.path}", "../shallow")
    shallow = Repo(repo.path.parent / "shallow")
    shallow.write(".ralph/.gitignore", "*\n")
    assert check_target(shallow.path, None).branch == "main"
    one, two = Ticket(shallow.path, "1"), Ticket(shallow.path, "2")
    two.add()
    assert isinstance(one.run("one", "1\n"), Landed)
    assert isinstance(two.run("two", "2\n"), Landed)
    assert shallow.git("status", "--porcelain") == "" and one.remove() is None


def test_files_of_lfs_are_files_for_the_agent_and_pointers_in_the_merge(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/git-lfs"
    program.parent.mkdir()
    program.write_text(LFS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    for kind in ("smudge", "clean"):
        repo.git("config", f"filter.lfs.{kind}", f"git-lfs {kind}")
    repo.git("config", "filter.lfs.required", "true")
    repo.commit(".gitattributes", "*.png filter=lfs\n")
    repo.commit("one.png", "a picture\n")
    assert check_target(repo.path, None).branch == "main"
    ticket = Ticket(repo.path)
    ticket.add()
    assert (ticket.path / "one.png").read_text() == "a picture\n"
    repo.write("three.png", "mine, and the same\n")  # is in the way, unless what it becomes is looked at
    ticket.write("three.png", "mine, and the same\n")
    assert isinstance(ticket.run("two.png", "another\n"), Landed)
    assert repo.git("show", "main:two.png").startswith("pointer ")
    assert (repo.path / "two.png").read_text() == "another\n" and repo.git("status", "--porcelain") == ""
    assert ticket.remove() is None
