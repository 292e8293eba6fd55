"""What the demo's model says: a small job done as an agent would do it, one item per iteration.

It remembers nothing between requests. It reads from the conversation which item is next, what this session has done
and what the operator asked for, as a real model must; so it shows that a fresh context and a task file are enough.
Also holds the project it works on. Pure.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from ralph_rpc.demo import backlog
from ralph_rpc.demo.model import Reply, Request, Usage, since_prompt, text_of

MARKER = "<promise>COMPLETE</promise>"
VERIFY = "python3 -m unittest -q"
STEER = "One more wish: please turn '&' into 'and'."

TASK = """\
# Readable addresses

`slugify(title)` in slug.py makes a page's address from its title. Teach it, each with a test in test_slug.py:

- [ ] 1. lower case, words joined by hyphens: "Hello, World!" gives hello-world
- [ ] 2. accents are dropped: "Crème brûlée" gives creme-brulee
- [ ] 3. at most 40 characters, cut between words

One item per iteration: write code and test, run `python3 -m unittest -q`, commit, tick the item.
"""

WISHES = "wishes.md"
"""The task's file in the project that `demo --keep` leaves."""

FILES = {
    ".gitignore": "__pycache__/\n",
    "slug.py": """\
def slugify(title: str) -> str:
    return title
""",
    "test_slug.py": """\
import unittest

from slug import slugify


class SlugTest(unittest.TestCase):
    pass
""",
}
"""The project as the agent finds it."""

AMPERSAND = 'title = title.replace("&", " and ")'
"""What the operator's wish becomes in slug.py."""
_TITLES = ("lower case and hyphens", "accents", "length")


def reply(request: Request, steer_now: Callable[[], None]) -> Reply:
    """The next turn. `steer_now` is called once, before a turn in the middle of the second item."""
    conversation = since_prompt(request)
    ticket = backlog.ticket_in(conversation)
    if ticket is not None:
        return backlog.reply(ticket, conversation, MARKER)
    if len(conversation) == 1:
        reads = [("read", {"path": path}) for path in (_task_path(conversation), "slug.py")]
        return _turn("I start with the task and the code.", *reads)
    item = _next_item(conversation)
    if item is None:
        return _turn(f"Every item is ticked and tested.\n\n{MARKER}")
    calls = _calls(conversation)
    heard = any(STEER in text_of(message) for message in conversation if message["role"] == "user")
    wish = heard or any(AMPERSAND in text_of(message) for message in conversation)
    written = [given["content"] for name, given in calls if name == "write" and given["path"] == "slug.py"]
    if not written and item == 2 and not wish:
        steer_now()
    if not written:
        return _turn(f"Item {item} is next: {_TITLES[item - 1]}.", *_writes(item, wish))
    if heard and AMPERSAND not in written[-1]:
        return _turn("The operator wants '&' to become 'and'. I put that in too.", *_writes(item, wish=True))
    if not any(name == "bash" for name, _ in calls[_last_write(calls) :]):
        commit = f"git add -A && git commit -q -m 'slugify: {_TITLES[item - 1]}'"
        return _turn("Now the tests, and a commit if they pass.", ("bash", {"command": f"{VERIFY} && {commit}"}))
    if not any(name == "edit" for name, _ in calls):
        tick = {"oldText": f"- [ ] {item}.", "newText": f"- [x] {item}."}
        return _turn("They pass. I tick it.", ("edit", {"path": _task_path(conversation), "edits": [tick]}))
    if item == len(_TITLES):
        return _turn(f"Item {item} is done, which was the last; all tests pass.\n\n{MARKER}")
    return _turn(f"Item {item} is done and committed; {len(_TITLES) - item} to go.")


def slug_py(item: int, wish: bool) -> str:
    """slug.py once the first `item` items are done, with or without the operator's wish."""
    imports = "import re\nimport unicodedata\n" if item > 1 else "import re\n"
    limit = ", limit: int = 40" if item > 2 else ""
    lines = ['    words = re.findall(r"[a-z0-9]+", title.lower())\n']
    if item > 1:
        lines.insert(0, '    title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()\n')
    if wish:
        lines.insert(0, f"    {AMPERSAND}\n")
    if item > 2:
        lines.append('    while len("-".join(words)) > limit and len(words) > 1:\n        words.pop()\n')
        lines.append('    return "-".join(words)[:limit]\n')
    else:
        lines.append('    return "-".join(words)\n')
    return f"{imports}\n\ndef slugify(title: str{limit}) -> str:\n{''.join(lines)}"


def tests_py(item: int, wish: bool) -> str:
    """Its tests, one for each item that is done."""
    tests = [
        ("words_are_joined_by_hyphens", 'slugify("Hello, World!"), "hello-world"'),
        ("accents_are_dropped", 'slugify("Crème brûlée"), "creme-brulee"'),
        ("long_titles_are_cut_between_words", 'slugify("word " * 9), "word-word-word-word-word-word-word-word"'),
    ][:item]
    if wish:
        tests.append(("an_ampersand_is_spoken", 'slugify("Salt & Pepper"), "salt-and-pepper"'))
    bodies = [f"    def test_{name}(self):\n        self.assertEqual({check})\n" for name, check in tests]
    return FILES["test_slug.py"].replace("    pass\n", "\n".join(bodies))


def _turn(text: str, *calls: tuple[str, dict[str, Any]]) -> Reply:
    return Reply(text, calls, Usage(2_400, 40 + len(text), 1_800), delay=0.5, pace=0.03, piece=8)


def _writes(item: int, wish: bool) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("write", {"path": "slug.py", "content": slug_py(item, wish)}),
        ("write", {"path": "test_slug.py", "content": tests_py(item, wish)}),
    ]


def _task_path(conversation: list[Request]) -> str:
    """Where the task is; the loop's prompt names it."""
    found = re.search(r"[^\s`]*\.ralph/[^\s`]+?/task\.md", text_of(conversation[0]))
    return found[0] if found else ".ralph/demo/task.md"


def _next_item(conversation: list[Request]) -> int | None:
    """The first unticked item in the task as it was read at the beginning of this session."""
    checklists = (text_of(message) for message in conversation if message["role"] == "tool")
    task = next((text for text in checklists if re.search(r"^- \[[ x]\] 1\.", text, re.MULTILINE)), "")
    found = re.search(r"^- \[ \] (\d)\.", task, re.MULTILINE)
    return int(found[1]) if found else None


def _calls(conversation: list[Request]) -> list[tuple[str, dict[str, Any]]]:
    """Every tool call of this session, oldest first."""
    functions = [call["function"] for message in conversation for call in message.get("tool_calls") or ()]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def _last_write(calls: list[tuple[str, dict[str, Any]]]) -> int:
    return max(index for index, (name, _) in enumerate(calls) if name == "write")
