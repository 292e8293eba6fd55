"""The small backlog in the project that `demo --keep` leaves, and what the demo's model does with its tickets.

As in `agent`, the model reads from the conversation which ticket it has and how far it is. Pure.
"""

import re
from dataclasses import dataclass
from typing import Any

from ralph_rpc.demo.model import Reply, Request, Usage, text_of

PACE_S = 2.5
"""Before each answer: a person who types the README's commands has time to look and to steer."""


@dataclass(frozen=True)
class _Ticket:
    title: str
    component: str
    deps: str
    wanted: str
    path: str
    content: str
    """What its agent writes there."""


_TICKETS = {
    "sl-1": _Ticket(
        "Many titles at once",
        "core",
        "",
        "`slugify_all(titles)` in many.py gives the addresses of a list of titles.",
        "many.py",
        "from slug import slugify\n\n\ndef slugify_all(titles: list[str]) -> list[str]:\n"
        "    return [slugify(title) for title in titles]\n",
    ),
    "sl-2": _Ticket(
        "A command line",
        "cli",
        "sl-1",
        "`python3 cli.py TITLE…` prints the address of each title on a line of its own.",
        "cli.py",
        "import sys\n\nfrom many import slugify_all\n\n"
        'if __name__ == "__main__":\n    print("\\n".join(slugify_all(sys.argv[1:])))\n',
    ),
    "sl-3": _Ticket(
        "Say how to use it",
        "docs",
        "",
        "A README.md with one example.",
        "README.md",
        "# slug\n\n```python\n>>> slugify('Hello, World!')\n'hello-world'\n```\n",
    ),
    "sl-4": _Ticket(
        "No address twice",
        "core",
        "",
        "`unique(slug, taken)` in unique.py appends -2, -3, … to an address that is taken.",
        "unique.py",
        "def unique(slug: str, taken: set[str]) -> str:\n    number, found = 1, slug\n    while found in taken:\n"
        '        number += 1\n        found = f"{slug}-{number}"\n    return found\n',
    ),
}


def files() -> dict[str, str]:
    """The tickets, by their paths in the project."""
    return {f".tickets/{id}.md": _text(id, ticket) for id, ticket in _TICKETS.items()}


def _text(id: str, ticket: _Ticket) -> str:
    head = f"id: {id}\nstatus: open\ndeps: [{ticket.deps}]\npriority: 2\ntags: [component:{ticket.component}]"
    return f"---\n{head}\n---\n# {ticket.title}\n\n{ticket.wanted}\n"


def ticket_in(conversation: list[Request]) -> str | None:
    """Which of the tickets the prompt is about, if any."""
    found = re.search(r"^Ticket ([\w-]+), ", text_of(conversation[0]), re.MULTILINE)
    return found[1] if found and found[1] in _TICKETS else None


def reply(id: str, conversation: list[Request], marker: str) -> Reply:
    """The next turn of the agent that has this ticket."""
    ticket = _TICKETS[id]
    last = conversation[-1]
    if len(conversation) > 1 and last["role"] == "user":
        asked = " ".join(text_of(last).split())
        return _turn(f"The operator says: {asked} I keep to it.", ("read", {"path": ticket.path}))
    used = [call["function"]["name"] for message in conversation for call in message.get("tool_calls") or ()]
    if not used:
        return _turn("I read the ticket.", ("read", {"path": f".tickets/{id}.md"}))
    if "write" not in used:
        return _turn("That is one small file.", ("write", {"path": ticket.path, "content": ticket.content}))
    if "bash" not in used:
        commit = f"git add {ticket.path} && git commit -q -m '{id}: {ticket.path}'"
        return _turn("I commit it.", ("bash", {"command": commit}))
    return _turn(f"{ticket.path} is written and committed.\n\n{marker}")


def _turn(text: str, *calls: tuple[str, dict[str, Any]]) -> Reply:
    return Reply(text, calls, Usage(2_100, 30 + len(text), 1_500), delay=PACE_S, pace=0.03, piece=8)
