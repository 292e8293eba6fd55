"""What two repositories tell each other: a commit below a ref of its own, whose tree is files and whose parents are work.

A *note* arrives whole or not at all, since one ref is one update, and brings the work that it is about with it. It is in
no branch, so nobody's checkout, build or merge sees it. The hub is a repository that both sides reach, by a path or an
address; None is the repository itself. If the machine dies between two calls here, a ref is old or new.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, run
from ralph_rpc.git.repository import same_place

ASK_TIMEOUT_S = 120.0
_AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "ralph-rpc"), ("EMAIL", "ralph-rpc@localhost"))
}


def write_note(repo: Path, files: Mapping[str, bytes], parents: Sequence[str], subject: str) -> str:
    """The commit of a note, which no ref names yet. Names of files are plain, without folders."""
    rows = []
    for name, data in sorted(files.items()):
        blob = run(["hash-object", "-w", "--stdin"], repo, stdin=data).line
        rows.append(f"100644 blob {blob}\t{name}\n")
    tree = run(["mktree"], repo, stdin="".join(rows).encode()).line
    words = [word for parent in parents for word in ("-p", parent)]
    return run(["commit-tree", *words, "-m", subject, tree], repo, env_extra=_AUTHOR).line


def read_note(repo: Path, commit: str, name: str) -> bytes:
    """A file of a note. GitError where it is not there."""
    return run(["cat-file", "blob", f"{commit}:{name}"], repo).out


def parents_of(repo: Path, commit: str) -> list[str]:
    """The work that a note is about."""
    return run(["rev-parse", f"{commit}^@"], repo).out.decode().split()


def refs(repo: Path, hub: str | None, prefix: str) -> dict[str, str]:
    """The refs of the hub that begin like this, with a slash or the end behind it, and their commits."""
    if hub is None:
        found = run(["for-each-ref", "--format=%(objectname)%09%(refname)", prefix], repo, timeout=ASK_TIMEOUT_S)
    else:
        asked = ["ls-remote", "--quiet", "--refs", hub, prefix, f"{prefix}/*"]
        found = run(asked, repo, timeout=ASK_TIMEOUT_S)
    rows = (line.split("\t", 1) for line in found.out.decode(errors="replace").splitlines())
    return {row[1]: row[0] for row in rows if len(row) == 2}


def fetch(repo: Path, hub: str | None, names: Sequence[str]) -> None:
    """Brings these refs of the hub here, under the same names, whatever they were."""
    if hub is None or not names:
        return
    words = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", hub]
    run([*words, *(f"+{name}:{name}" for name in names)], repo, timeout=CHECKOUT_TIMEOUT_S)


def publish(repo: Path, hub: str | None, updates: Mapping[str, str | None]) -> None:
    """Sets these refs of the hub, all or none; None removes one, which need not be there."""
    if hub is None:
        rows = (
            f"update {name}\0{commit}\0\0" if commit is not None else f"delete {name}\0\0"
            for name, commit in updates.items()
        )
        run(["update-ref", "--stdin", "-z"], repo, stdin="".join(rows).encode())
        return
    words = ["push", "--quiet", "--force", *(["--atomic"] if len(updates) > 1 else []), hub]
    run([*words, *(f"{commit or ''}:{name}" for name, commit in updates.items())], repo, timeout=CHECKOUT_TIMEOUT_S)


def is_near(hub: str | None) -> bool:
    """Whether asking it costs no network."""
    return hub is None or hub.startswith(("/", "file://"))


def is_own(repo: Path, hub: str) -> bool:
    """Whether the hub is the repository itself."""
    return same_place(Path(hub.removeprefix("file://")), repo)
