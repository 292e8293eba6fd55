"""A folder goes, whatever modes a tool has left in it, and nothing that a link in it leads to."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig import FOR_WHOM_MODES_COUNT

REMOVE = "import sys, pathlib; from ralph_rpc.files.removal import remove_tree; remove_tree(pathlib.Path(sys.argv[1]))"


@pytest.mark.parametrize("mode", [0o500, 0o300, 0o000], ids=oct)
def test_closed_folders_go_and_what_is_linked_to_stays(tmp_path: Path, mode: int) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (outside / "below").mkdir(parents=True)
    (outside / "file").touch()
    (tree / "one/two/three").mkdir(parents=True)
    (tree / "one/two/file").touch()
    (tree / "one/two/link").symlink_to(outside)
    for folder in (tree / "one/two", tree / "one", tree, outside):
        folder.chmod(mode)
    done = subprocess.run(
        [*FOR_WHOM_MODES_COUNT, sys.executable, "-P", "-c", REMOVE, str(tree)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not tree.exists()
    assert outside.stat().st_mode & 0o777 == mode
    outside.chmod(0o700)
    assert {path.name for path in outside.iterdir()} == {"below", "file"}
