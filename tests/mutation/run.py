"""Mutation testing of what decides: how many small faults do the quick tests of these modules notice?

    python tests/mutation/run.py          every mutant, from nothing
    python tests/mutation/run.py again    only those that are new, changed or were not killed

Prints the score of every module and the mutants that survive, and ends with 1 if fewer than GOAL % are killed.
What is mutated, and by which tests, is said in pyproject.toml, [tool.mutmut]; docs/mutation.md says what survives
and why. Everything happens in .cache/mutation, where `mutmut show NAME` and `mutmut browse` work as well.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGE = ROOT / ".cache/mutation"
CONTENTS = {
    "pyproject.toml": "pyproject.toml",
    "ralph_rpc": "ralph_rpc",
    "ralph_runner": "runner/ralph_runner",
    "schemas": "schemas",
    "tests": "tests",
}
"""mutmut takes a file's path for its module's name, so here both packages lie side by side."""

GOAL = 85
DEAD = ("killed", "timeout", "segfault")
LINE = re.compile(r"^ +(?P<module>[\w.]+)\.(?P<mutant>x[_ǁ]\S+): (?P<state>.+)$", re.MULTILINE)


def mutmut(*args: str, quiet: bool = False) -> str:
    """What mutmut prints; shown as it comes if not `quiet`. Ends the program if mutmut fails."""
    command = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", *args]
    done = subprocess.run(command, cwd=STAGE, stdout=subprocess.PIPE if quiet else None, text=True, check=False)
    if done.returncode:
        sys.exit(f"mutmut {args[0]} failed")
    return done.stdout or ""


def stage(fresh: bool) -> None:
    """Lay out what mutmut reads; its results of an earlier run stay unless `fresh`."""
    if fresh:
        shutil.rmtree(STAGE, ignore_errors=True)
    # mutmut copies tests over those of an earlier run, but never removes one that is gone.
    shutil.rmtree(STAGE / "mutants/tests", ignore_errors=True)
    STAGE.mkdir(parents=True, exist_ok=True)
    for name, source in CONTENTS.items():
        if not (STAGE / name).is_symlink():
            (STAGE / name).symlink_to(ROOT / source)


def results() -> list[tuple[str, str, str]]:
    """(module, mutant, what became of it) of every mutant."""
    return [
        (m["module"], m["mutant"], m["state"]) for m in LINE.finditer(mutmut("results", "--all", "true", quiet=True))
    ]


def main(args: list[str]) -> int:
    again = args[:1] == ["again"]
    children = ["--max-children", args[-1]] if args[-1:] and args[-1].isdigit() else []
    stage(fresh=not again)
    mutmut("run", *children)
    if again and (alive := [f"{module}.{mutant}" for module, mutant, state in results() if state not in DEAD]):
        mutmut("run", *children, *alive)

    found = results()
    total = Counter(module for module, _, _ in found)
    dead = Counter(module for module, _, state in found if state in DEAD)
    print()
    for module, mutant, state in found:
        if state not in DEAD:
            print(f"{state}: {module}.{mutant}")
    print()
    for module in sorted(total):
        print(f"{100 * dead[module] / total[module]:5.1f} %  {dead[module]:5} of {total[module]:5}  {module}")
    score = 100 * dead.total() / total.total()
    print(f"{score:5.1f} %  {dead.total():5} of {total.total():5}  killed; the goal is {GOAL} %")
    return 0 if score >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
