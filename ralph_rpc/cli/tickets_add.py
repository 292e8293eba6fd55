"""`ralph-rpc tickets add`: writes one ticket as a file. What it looks like is in `ralph_rpc.tickets.sources.adding`."""

import sys
from pathlib import Path

import click

from ralph_rpc.cli.command import Command
from ralph_rpc.cli.completing import complete_tickets
from ralph_rpc.cli.sending import say, say_json
from ralph_rpc.errors import UsageError
from ralph_rpc.files.text import LARGEST_FILE, decode_text
from ralph_rpc.tickets.ticket import COMPONENT


@click.command("tickets add", cls=Command)
@click.argument("title", nargs=-1, required=True, metavar="TITLE...")
@click.option("-d", "--description", metavar="TEXT", help="What is to be done; - is stdin.")
@click.option("-p", "--priority", type=int, default=2, metavar="N", help="0 (first) to 4. [2]")
@click.option(
    "-c", "--component", multiple=True, metavar="NAME", help="A part of the project that it changes; repeatable."
)
@click.option("--tag", multiple=True, metavar="TEXT", help="Another tag; repeatable.")
@click.option("--dep", multiple=True, metavar="ID", shell_complete=complete_tickets, help="It waits for this ticket.")
@click.option("--type", "type_", default="task", metavar="TEXT", help="Such as bug or feature. [task]")
@click.option("--id", metavar="ID", help="Its id. [made from the project's name]")
@click.option("--tickets", metavar="DIR", help="The folder of the tickets. [the nearest .tickets]")
@click.option("--json", "as_json", is_flag=True, help="Print its id and its file as a JSON object.")
def tickets_add(
    title: tuple[str, ...],
    description: str | None,
    priority: int,
    component: tuple[str, ...],
    tag: tuple[str, ...],
    dep: tuple[str, ...],
    type_: str,
    id: str | None,
    tickets: str | None,
    as_json: bool,
) -> None:
    """Write a ticket as a Markdown file, ready for `start --tickets`, and print its id.

    Tickets that share a component never run at the same time; one without a component runs alone.
    """
    # Here, because `ralph-rpc tickets --help` needs none of it.
    from ralph_rpc.tickets.sources.adding import NewTicket, add_ticket, folder_for_new

    text = description or ""
    if description == "-":
        text = decode_text(sys.stdin.buffer.read(LARGEST_FILE + 1), "the description on stdin")
    folder = Path(tickets).expanduser() if tickets else folder_for_new(Path.cwd())
    if tickets and not folder.is_dir():
        raise UsageError(f"--tickets: {folder} is not a folder", "name the folder of the tickets, such as .tickets")
    tags = [*(f"{COMPONENT}{name}" for name in component), *tag]
    file = add_ticket(folder, NewTicket(" ".join(title), text, id, type_, priority, dep, tags))
    if as_json:
        say_json({"id": file.stem, "file": str(file.absolute())})
    else:
        say(f"{file.stem}  {file}")
