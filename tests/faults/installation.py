"""The program installed in a venv of its own, with what it needs, to be taken away from under a running loop."""

import shutil
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("click", "jinja2", "markupsafe", "orjson", "platformdirs", "psutil", "pyyaml", "watchdog", "wcwidth")
"""The distributions that a start and a runner import."""


class Installation:
    """A venv that holds the program."""

    def __init__(self, place: Path) -> None:
        self.place = place
        venv.EnvBuilder(symlinks=True, with_pip=False).create(place)
        self.packages = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
        shutil.copytree(ROOT / "ralph_rpc", self.packages / "ralph_rpc")
        shutil.copytree(ROOT / "runner" / "ralph_runner", self.packages / "ralph_runner")
        for name in NEEDED:
            for file in metadata.files(name) or ():
                source = Path(str(file.locate()))
                if ".." not in file.parts and source.is_file() and file.suffix != ".pyc":
                    target = self.packages / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, target)

    @property
    def python(self) -> str:
        return str(self.place / "bin" / Path(sys.executable).name)

    def move_away(self) -> None:
        """The venv is renamed, and there is nothing in its place."""
        self.place.rename(self.place.with_name(f"{self.place.name}-moved"))

    def overwrite(self) -> None:
        """Every file of every package is replaced by something that cannot be imported, as an upgrade might."""
        for file in self.packages.rglob("*"):
            if file.is_file():
                file.unlink()
                file.write_text("raise SystemExit('this is not what was installed')\n")

    def uninstall(self) -> None:
        """All packages are removed; the interpreter stays."""
        shutil.rmtree(self.packages)
