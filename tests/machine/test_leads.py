"""What leads from a worktree into the main checkout: variables, and packages of environments that lie elsewhere."""

import json
from pathlib import Path

import pytest

from ralph_rpc.machine.installs import installs_into
from ralph_rpc.machine.leads import without_leads


def test_every_kind_of_variable_loses_what_leads_into_the_checkout_and_nothing_else(tmp_path: Path) -> None:
    project, own = tmp_path / "project", tmp_path / "own"
    (project / "bin").mkdir(parents=True)
    (project / "key.json").touch()
    (tmp_path / "link").symlink_to(project / "bin")
    env = {
        "PATH": f"{project}/.venv/bin:/usr/bin:{project}/node_modules/.bin:./bin:{tmp_path}/link",
        "PYTHONPATH": f"{project}/src",
        "NODE_PATH": f"/opt/node:{project}/lib",
        "LD_LIBRARY_PATH": f"{project}/build",
        "PERL5LIB": f"{project}/perl:/opt/perl",
        "VIRTUAL_ENV": f"{project}/.venv",
        "VIRTUAL_ENV_PROMPT": "project",
        "NODE_OPTIONS": f"--require {project}/hook.js",
        "npm_config_local_prefix": str(project),
        "CARGO_TARGET_DIR": f"{project}/target",
        "GIT_DIR": ".git",
        "OLDPWD": str(project),
        "KEY_PATH": f"{project}/key.json",
        "DATABASE_URL": f"sqlite:///{project}/db",
        "HOME": "/home/me",
        "OWN_PATH": str(own),
        "NEAR_PATH": f"{project}-2/bin",
    }
    clean, removed = without_leads(env, project, own)
    kept = {name: env[name] for name in ("KEY_PATH", "DATABASE_URL", "HOME", "OWN_PATH", "NEAR_PATH")}
    assert clean == {"PATH": "/usr/bin:./bin", "NODE_PATH": "/opt/node", "PERL5LIB": "/opt/perl", **kept}
    told = " ".join(removed)
    assert f"PATH ({project}/.venv/bin:{project}/node_modules/.bin:{tmp_path}/link)" in told
    assert "OLDPWD" not in told and "VIRTUAL_ENV (" in told


def test_a_worktree_inside_of_the_checkout_keeps_what_is_its_own(tmp_path: Path) -> None:
    own = tmp_path / "worktrees/t-1"
    clean, _ = without_leads({"PATH": f"{own}/bin:{tmp_path}/bin"}, tmp_path, own)
    assert clean == {"PATH": f"{own}/bin"}


def test_a_variable_of_the_user_s_own_means_the_same_place_in_the_worktree(tmp_path: Path) -> None:
    project, own = tmp_path / "project", tmp_path / "own"
    for folder in (project / "src", project / "data", own / "src"):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(project)
    env = {
        "PROJECT_ROOT": str(project),
        "APP_SRC": f"{project}/src/",
        "DATA_DIR": f"{project}/data",
        "LINKED": f"{tmp_path}/link",
        "RALPH_LOOP_DIR": str(project),
        "WORD": "src",
        "HOME": "/home/me",
    }
    clean, removed = without_leads(env, project, own)
    assert clean == {**env, "PROJECT_ROOT": str(own), "APP_SRC": f"{own}/src", "LINKED": str(own)}
    assert removed == (f"PROJECT_ROOT (now {own})", f"APP_SRC (now {own}/src)", f"LINKED (now {own})")


def test_where_the_home_lies_in_the_checkout_nothing_is_taken_out(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/.local/bin:/usr/bin"}
    assert without_leads(env, tmp_path, tmp_path / "own") == (env, ())


def site(venv: Path) -> Path:
    found = venv / "lib/python3.12/site-packages"
    found.mkdir(parents=True)
    return found


@pytest.mark.parametrize("kind", ["pth", "finder", "direct_url", "egg-link", "link"])
def test_an_environment_elsewhere_whose_packages_lead_into_the_checkout_is_found(tmp_path: Path, kind: str) -> None:
    project, venv = tmp_path / "a project", tmp_path / "venv"
    (project / "src").mkdir(parents=True)
    folder = site(venv)
    (folder / "other.pth").write_text("/somewhere/else\nimport os\n")
    match kind:
        case "pth":
            (folder / "__editable__.shop-0.1.pth").write_text(f"{project}/src\n")
        case "finder":
            (folder / "__editable___shop_0_1_finder.py").write_text(f"MAPPING = {{'shop': '{project}/src/shop'}}\n")
        case "direct_url":
            (folder / "shop-0.1.dist-info").mkdir()
            url = {"url": project.as_uri(), "dir_info": {"editable": True}}
            (folder / "shop-0.1.dist-info/direct_url.json").write_text(json.dumps(url))
        case "egg-link":
            (folder / "shop.egg-link").write_text(f"{project}\n.")
        case "link":
            (folder / "shop").symlink_to(project / "src")
    found = installs_into({"VIRTUAL_ENV": str(venv), "PATH": ""}, project)
    assert found == [(str(venv), "shop")]


def test_the_environment_is_found_by_the_python_on_the_path_and_one_in_the_checkout_is_not_told(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for venv in (tmp_path / "venv", project / ".venv"):
        (site(venv) / "shop.pth").write_text(f"{project}\n")
        (venv / "bin").mkdir()
        (venv / "bin/python").write_text("#!/bin/sh\n")
        (venv / "bin/python").chmod(0o755)
    assert installs_into({"PATH": f"{project}/.venv/bin"}, project) == []
    assert installs_into({"PATH": f"{tmp_path}/venv/bin"}, project) == [(str(tmp_path / "venv"), "shop")]


@pytest.mark.parametrize("where", ["versions/3.12.1", "versions/3.12.1/envs/shop", "installs/python/3.12"])
def test_the_environment_behind_a_shim_is_found(tmp_path: Path, where: str) -> None:
    project, home = tmp_path / "project", tmp_path / "home"
    (site(home / where) / "shop.pth").write_text(f"{project}\n")
    (home / "shims").mkdir()
    (home / "shims/python").write_text("#!/bin/sh\n")
    (home / "shims/python").chmod(0o755)
    assert installs_into({"PATH": f"{home}/shims"}, project) == [(str(home / where), "shop")]


def test_a_package_that_npm_has_linked_is_found(tmp_path: Path) -> None:
    project, modules = tmp_path / "project", tmp_path / "node/lib/node_modules"
    project.mkdir()
    (modules / "@me").mkdir(parents=True)
    (modules / "@me/shop").symlink_to(project)
    (tmp_path / "node/bin").mkdir()
    (tmp_path / "node/bin/node").write_text("")
    (tmp_path / "node/bin/node").chmod(0o755)
    assert installs_into({"PATH": f"{tmp_path}/node/bin"}, project) == [(str(tmp_path / "node"), "shop")]


def test_broken_files_of_an_environment_say_nothing(tmp_path: Path) -> None:
    folder = site(tmp_path / "venv")
    (folder / "a.dist-info").mkdir()
    (folder / "a.dist-info/direct_url.json").write_text("[")
    (folder / "b.pth").write_bytes(b"\xff\x00/\n")
    (folder / "c.dist-info").write_text("")
    (folder / "d.dist-info").mkdir()
    (folder / "d.dist-info/direct_url.json").write_text("[1]")
    assert installs_into({"VIRTUAL_ENV": str(tmp_path / "venv"), "PATH": ""}, tmp_path / "project") == []
