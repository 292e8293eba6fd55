"""`ralph-rpc completion`: the script with which a shell completes commands, loops, tickets, models and options.

With --install it is written into the user's data folder, and one line in the shell's own start file reads it; for fish,
which looks by itself, into its folder of completions. Where an installer has left the man page in the program's own
environment, as uv and older pipx do, a link brings it to where `man` looks. All of it can be repeated: the script is
replaced, the line and the link are there once. If the machine dies here, the file is old or new, and the line is there or
not.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Literal, get_args

import click

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.sending import say
from ralph_rpc.errors import RalphError, UsageError

Shell = Literal["bash", "zsh", "fish"]


@click.command(cls=Command)
@click.argument("shell", required=False, type=click.Choice(get_args(Shell)))
@click.option("--install", is_flag=True, help="Make the shell load it from now on, and man find the man page.")
def completion(shell: Shell | None, install: bool) -> None:
    """Print the completion of a shell, or install it. Without SHELL: that of $SHELL."""
    chosen = shell or _own_shell()
    script = _script(chosen)
    if not install:
        click.echo(script)
        return
    try:
        _install(chosen, script)
        _link_man_page()
    except OSError as error:
        raise RalphError(
            f"cannot write {error.filename}: {error.strerror}", f"without it: ralph-rpc completion {chosen}"
        ) from error
    say(f"open a new {chosen} to use it")


def _own_shell() -> Shell:
    name = Path(os.environ.get("SHELL", "")).name
    for shell in get_args(Shell):
        if shell == name:
            return shell  # type: ignore[no-any-return]
    raise UsageError("which shell is yours?", f"say one of {', '.join(get_args(Shell))}")


def _script(shell: Shell) -> str:
    from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

    kinds: dict[Shell, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    program = click.get_current_context().find_root().command
    kind = kinds[shell](program, {}, "ralph-rpc", "_RALPH_RPC_COMPLETE")
    # Not `source()`: of bash it asks its version, by running whatever bash is on PATH.
    return kind.source_template % kind.source_vars()


def _install(shell: Shell, script: str) -> None:
    from ralph_rpc.files.atomic import write_atomic

    home = Path.home()
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        file = config / "fish" / "completions" / "ralph-rpc.fish"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, script.encode())
        say(f"wrote {file}")
        return
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "ralph-rpc"
    data.mkdir(parents=True, exist_ok=True)
    file = data / f"completion.{shell}"
    write_atomic(file, script.encode())
    say(f"wrote {file}")
    start = home / ".bashrc" if shell == "bash" else Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    _add_line(start, _line(shell, file))


def _link_man_page() -> None:
    """`man` looks beside the folders of PATH: share/man for bin."""
    page, program = Path(sys.prefix) / "share/man/man1/ralph-rpc.1", shutil.which("ralph-rpc")
    if program is None or not page.is_file():
        return
    link = Path(program).absolute().parent.parent / "share/man/man1/ralph-rpc.1"
    if link.is_symlink() and not link.exists():  # of an environment that was removed
        link.unlink()
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(page)
        say(f"linked {link}")


def _line(shell: Shell, file: Path) -> str:
    import shlex

    quoted = shlex.quote(str(file))
    if shell == "bash":
        return f"[ ! -f {quoted} ] || . {quoted}  # completion of ralph-rpc"
    # Without compinit there is no compdef, which the script calls.
    ready = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }"
    return f"[ ! -f {quoted} ] || {{ {ready}; . {quoted}; }}  # completion of ralph-rpc"


def _add_line(start: Path, line: str) -> None:
    """At the end of the shell's start file, which may be a link; nothing where it stands there already."""
    text = start.read_bytes() if start.exists() else b""
    if line.encode() in text.splitlines():
        return
    with start.open("ab") as file:
        file.write((b"" if not text or text.endswith(b"\n") else b"\n") + line.encode() + b"\n")
    say(f"added a line to {start}")
