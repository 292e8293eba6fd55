"""The extension's source: its types in each generation of pi, its parts that need no pi, and what the wheel holds of it."""

import fcntl
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.pi.find import PACKAGES
from ralph_rpc.pi.install import npm_command
from tests.real_pi import provision
from tests.real_pi.inside import EXTENSION

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests/pi_extension"
TYPESCRIPT = "5.9.3"
OPTIONS = {
    "noEmit": True,
    "strict": True,
    "noUnusedLocals": True,
    "noImplicitReturns": True,
    "noFallthroughCasesInSwitch": True,
    "target": "es2023",
    "lib": ["es2024"],
    "module": "nodenext",
    "moduleResolution": "nodenext",
    "allowImportingTsExtensions": True,
    # So that node runs it, and pi need not build it.
    "erasableSyntaxOnly": True,
    "verbatimModuleSyntax": True,
    "skipLibCheck": True,
    "types": ["node"],
}


def typescript() -> Path:
    """tsc, installed once below the cache of the pis."""
    folder = provision.CACHE / f"typescript-{TYPESCRIPT}"
    script = folder / "node_modules/typescript/bin/tsc"
    provision.CACHE.mkdir(parents=True, exist_ok=True)
    with (provision.CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not script.exists():
            npm = npm_command()
            assert npm is not None, "provisioning a pi has found or installed one"
            install = ["i", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
            subprocess.run([*npm, *install, f"typescript@{TYPESCRIPT}"], check=True, capture_output=True, timeout=300)
    return script


@pytest.mark.timeout(400)
def test_it_fits_the_types_of_every_pi(tmp_path: Path, pi: list[str]) -> None:
    modules = next(folder for folder in Path(pi[1]).parents if folder.name == "node_modules")
    scope = next(modules / package.split("/")[0] for package in PACKAGES if (modules / package).is_dir())
    paths = {
        "@mariozechner/pi-coding-agent": [str(scope / "pi-coding-agent/dist/index.d.ts")],
        "@mariozechner/pi-tui": [str(scope / "pi-tui/dist/index.d.ts")],
        "typebox": [str(modules / "typebox/build/index.d.mts")],
    }
    options = {**OPTIONS, "paths": paths, "typeRoots": [str(modules / "@types")]}
    config = tmp_path / "tsconfig.json"
    include = [str(EXTENSION / "*.ts"), str(UNIT / "*.ts")]
    config.write_text(json.dumps({"compilerOptions": options, "include": include}))
    done = subprocess.run([pi[0], str(typescript()), "-p", str(config)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def node() -> str:
    """One that runs TypeScript as it is: 22.18 or newer."""
    return provision.provide(provision.NEWEST).command[0]


@pytest.mark.pi
def test_its_parts_that_need_no_pi_do_what_they_say(node: str) -> None:
    files = sorted(str(file) for file in UNIT.glob("*.test.ts"))
    done = subprocess.run([node, "--test", *files], check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-5000:]


READER = """
const { LogReader } = await import(process.argv[1]);
const reader = new LogReader(process.argv[2]);
let next = 0;
const look = () => {
	for (const line of reader.read()) {
		const event = JSON.parse(line);
		if (event.type === "ralph_log_open") continue;
		if (event.n !== next) throw new Error(`${event.n} came instead of ${next}`);
		next++;
		if (event.last) { console.log(next, reader.missed); process.exit(0); }
	}
	setTimeout(look, 5);
};
look();
"""


def numbered(lines: int, size: int) -> Iterator[bytes]:
    for n in range(lines):
        yield b'{"n":%d,"last":%s,"pad":"%s"}' % (n, b"true" if n == lines - 1 else b"false", b"x" * size)


@pytest.mark.pi
@pytest.mark.parametrize("megabytes", [10, pytest.param(100, marks=pytest.mark.full)])
def test_a_log_that_rotates_while_it_is_read_loses_and_doubles_no_line(
    tmp_path: Path, node: str, megabytes: int
) -> None:
    path = tmp_path / "events.jsonl"
    path.touch()
    reader = [node, "--input-type=module", "-e", READER, (EXTENSION / "log.ts").as_uri(), str(path)]
    with subprocess.Popen(reader, stdout=subprocess.PIPE, text=True) as reading:
        lines = megabytes * 500
        log = EventLog.open(path, limit=(megabytes << 20) // 5, keep=9)
        for line in numbered(lines, 2000):
            log.append(line + b"\n")
        log.close()
        out, _ = reading.communicate(timeout=100)
    assert out.split() == [str(lines), "0"]
    assert len(list(tmp_path.glob("events.jsonl.*"))) >= 4


@pytest.mark.pi
def test_the_wheel_holds_the_extension_and_nothing_that_was_installed_beside_it(tmp_path: Path) -> None:
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_CACHE_DIR": str(provision.CACHE / "pip")}
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=110, env=env)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    ours = {str(file.relative_to(EXTENSION.parents[0].parent)) for file in EXTENSION.rglob("*") if file.is_file()}
    assert {name for name in names if "pi_extension/" in name} == ours
    assert f"{EXTENSION.parent.name}/pi_extension/skills/ralph-rpc/SKILL.md" in names
    assert not [name for name in names if "node_modules" in name or name.endswith((".js", ".map"))]
