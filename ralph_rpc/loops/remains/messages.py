"""Messages that the agent of a dead loop has not read. Called by `clean`; changes nothing."""

from ralph_rpc.files.commandfile import verb_of
from ralph_rpc.files.inbox import free_name
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow
from ralph_rpc.model.commands import MESSAGES


def unread_messages(loop: LoopPaths) -> int:
    """How many messages the agent would still get if the loop were resumed: those received and those in the inbox.

    Raises OSError.
    """
    journal = CommandJournal.read(loop.commands)
    files = nofollow.names(loop.inbox) if nofollow.is_folder(loop.inbox) else []
    waiting = [free_name(name) or name for name in files if not journal.knows_file(name)]
    received = [command.verb for command in journal.open_commands()]
    return sum(verb in MESSAGES for verb in (*received, *map(verb_of, waiting)))
