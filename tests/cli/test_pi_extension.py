"""`pi-extension` and what `doctor` says of it, with a pi that only keeps its settings as pi does."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.cli.main import run
from ralph_rpc.pi import extension
from tests.cli.examined import Capture, examined, install_pi, of

PI = """exec python3 - "$@" <<'END'
import json, os, sys
from pathlib import Path
verb, *rest = sys.argv[1:]
if verb == "--version":
    print("1.5.2")
    sys.exit()
settings = Path(os.environ["PI_CODING_AGENT_DIR"]) / "settings.json"
model = json.loads(settings.read_bytes()) if settings.exists() else {}
packages = model.setdefault("packages", [])
source = os.path.relpath(rest[0], settings.parent)
if verb == "install":
    packages.append(source)
elif any(os.path.normpath(settings.parent / one) == rest[0] for one in packages):
    model["packages"] = [one for one in packages if os.path.normpath(settings.parent / one) != rest[0]]
else:
    print("No matching package found", file=sys.stderr)
    sys.exit(1)
settings.write_text(json.dumps(model, indent=2))
END"""


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pi's folder of settings."""
    folder = tmp_path / "agent"
    folder.mkdir()
    monkeypatch.setenv("PI_CODING_AGENT_DIR", str(folder))
    (tmp_path / "web").mkdir()
    monkeypatch.chdir(tmp_path / "web")
    install_pi(tmp_path, monkeypatch, PI)
    return folder


def packages(agent: Path) -> list[str]:
    listed: list[str] = json.loads((agent / "settings.json").read_bytes())["packages"]
    return [os.path.normpath(agent / one) for one in listed]


def status(capsys: Capture) -> dict[str, Any]:
    capsys.readouterr()
    run(["pi-extension", "status", "--json"])
    model: dict[str, Any] = json.loads(capsys.readouterr().out)
    return model


BEFORE = [
    None,
    b"{}\n",
    b'{"theme": "dark"}',
    b'\xef\xbb\xbf{\r\n\t"theme":   "dark",\r\n\t"packages": [ "npm:other" ]\r\n}',
]


@pytest.mark.parametrize("before", BEFORE)
def test_it_is_installed_once_and_removed_without_a_trace(agent: Path, before: bytes | None, capsys: Capture) -> None:
    settings = agent / "settings.json"
    if before is not None:
        settings.write_bytes(before)
    others = before.count(b"npm:") if before else 0
    for _ in range(2):
        assert run(["pi-extension", "install"]) == 0
        assert packages(agent)[others:] == [str(extension.FOLDER)]
    found = status(capsys)
    assert found["installed"] and found["troubles"] == [] and os.access(found["command"][0], os.X_OK)
    assert [one["level"] for one in of(examined(capsys)[1], "extension")] == ["ok"]
    assert run(["pi-extension", "remove"]) == 0
    assert (settings.read_bytes() if settings.exists() else None) == before
    assert sorted(one.name for one in agent.iterdir()) == (["settings.json"] if before is not None else [])
    assert not extension.record_path().exists()
    assert run(["pi-extension", "remove"]) == 0
    assert not status(capsys)["installed"]
    assert of(examined(capsys)[1], "extension") == []


def test_what_was_changed_meanwhile_stays(agent: Path) -> None:
    settings = agent / "settings.json"
    settings.write_text('{"theme": "dark"}')
    run(["pi-extension", "install"])
    settings.write_text(settings.read_text().replace("dark", "light"))
    run(["pi-extension", "remove"])
    assert json.loads(settings.read_bytes()) == {"theme": "light", "packages": []}


def test_settings_that_are_a_link_stay_one(agent: Path, tmp_path: Path) -> None:
    dotfile = tmp_path / "dotfiles" / "pi.json"
    dotfile.parent.mkdir()
    dotfile.write_text('{ "theme": "dark" }\n')
    dotfile.chmod(0o640)
    (agent / "settings.json").symlink_to(dotfile)
    run(["pi-extension", "install"])
    run(["pi-extension", "remove"])
    assert (agent / "settings.json").is_symlink()
    assert dotfile.read_text() == '{ "theme": "dark" }\n' and dotfile.stat().st_mode & 0o777 == 0o640


def test_settings_that_a_pi_is_just_changing_stay_as_pi_leaves_them(agent: Path) -> None:
    settings = agent / "settings.json"
    settings.write_text('{ "theme": "dark" }\n')
    run(["pi-extension", "install"])
    lock = agent / "settings.json.lock"
    lock.mkdir()
    assert run(["pi-extension", "remove"]) == 0
    assert lock.is_dir() and json.loads(settings.read_bytes()) == {"theme": "dark", "packages": []}


@pytest.mark.parametrize("kept", ["{", "[]", 7, None])
def test_a_damaged_record_of_what_was_there_changes_nothing(agent: Path, kept: object) -> None:
    run(["pi-extension", "install"])
    record = json.loads(extension.record_path().read_bytes())
    extension.record_path().write_text(json.dumps({**record, "settingsBefore": kept}))
    assert run(["pi-extension", "remove"]) == 0
    assert json.loads((agent / "settings.json").read_bytes()) == {"packages": []}


def test_a_path_that_is_gone_is_seen_and_replaced(agent: Path, tmp_path: Path, capsys: Capture) -> None:
    gone = tmp_path / "old/ralph_rpc/pi_extension"
    (agent / "settings.json").write_text(json.dumps({"packages": [os.path.relpath(gone, agent), "npm:other"]}))
    (finding,) = of(examined(capsys)[1], "extension")
    assert finding["level"] == "warn" and str(gone) in finding["message"]
    assert run(["pi-extension", "install"]) == 0
    assert packages(agent) == [os.path.normpath(agent / "npm:other"), str(extension.FOLDER)]
    assert status(capsys)["troubles"] == []


def test_a_copy_in_pis_own_folder_is_not_doubled(agent: Path, capsys: Capture) -> None:
    copy = agent / "extensions/ralph"
    shutil.copytree(extension.FOLDER, copy)
    assert run(["pi-extension", "install"]) != 0
    assert f"rm -r {copy}" in capsys.readouterr().err
    assert not (agent / "settings.json").exists()
    (agent / "settings.json").write_text(json.dumps({"packages": [str(extension.FOLDER)]}))
    levels = [one["level"] for one in of(examined(capsys)[1], "extension")]
    assert "fail" in levels


def test_another_version_and_a_lost_program_are_seen(agent: Path, tmp_path: Path, capsys: Capture) -> None:
    other = tmp_path / "other/pi_extension"
    shutil.copytree(extension.FOLDER, other)
    package = json.loads((other / "package.json").read_bytes())
    (other / "package.json").write_text(json.dumps({**package, "version": "9.9.9"}))
    (agent / "settings.json").write_text(json.dumps({"packages": [str(other)]}))
    first, second = status(capsys)["troubles"]
    assert "9.9.9" in first and "pi-extension.json is missing" in second
    run(["pi-extension", "install"])
    assert packages(agent) == [str(extension.FOLDER)]
    record = json.loads(extension.record_path().read_bytes())
    extension.record_path().write_text(json.dumps({**record, "command": [str(tmp_path / "gone"), "-m", "ralph_rpc"]}))
    (trouble,) = status(capsys)["troubles"]
    assert str(tmp_path / "gone") in trouble
