"""Which of the loop's workers has a ticket, and the block of ports that is the worker's: RALPH_WORKER, RALPH_PORT_BASE.

Used by `ticket_environment`. A ticket has the same worker from its first command to its last; then the lowest free number
goes to the next one. A block is kept from other loops by the name of a socket, which the kernel frees when the runner
ends, however that happens, and which each network namespace has for itself, as the ports.
"""

import socket

FIRST_PORT, LAST_PORT, BLOCK = 20_000, 32_700, 100
"""Below the ports that the kernel gives to connections."""


class Workers:
    """The workers of one loop. Called from several threads, one ticket in each."""

    def __init__(self, parallel: int, queue: str) -> None:
        """`queue` is the name under which the merge queue asks: a worker after the agents', of whom there are `parallel`."""
        self._queue, self._after_all = queue, parallel + 1
        self._numbers: dict[str, int] = {}
        self._blocks: dict[int, tuple[int, socket.socket | None]] = {}

    def number_of(self, ticket: str) -> int:
        """From 1; the ticket keeps it until it is `done`."""
        if ticket == self._queue:
            return self._after_all
        if ticket not in self._numbers:
            taken = set(self._numbers.values())
            self._numbers[ticket] = next(n for n in range(1, len(taken) + 2) if n not in taken)
        return self._numbers[ticket]

    def done(self, ticket: str) -> None:
        """Its worker is free for another one."""
        self._numbers.pop(ticket, None)

    def port_base(self, ticket: str) -> int:
        """The first of the hundred ports of the ticket's worker. None of them was in use when the worker got them."""
        number = self.number_of(ticket)
        if number not in self._blocks:
            self._blocks[number] = _free_block()
        return self._blocks[number][0]

    def close(self) -> None:
        """Leave the blocks to other loops."""
        for _, claim in self._blocks.values():
            if claim is not None:
                claim.close()
        self._blocks.clear()


def _free_block() -> tuple[int, socket.socket | None]:
    for base in range(FIRST_PORT, LAST_PORT + 1, BLOCK):
        claim = _claimed(base)
        if claim is None:
            continue
        if all(_is_free(port) for port in range(base, base + BLOCK)):
            return base, claim
        claim.close()
    return FIRST_PORT, None  # every block has a port in use: a base all the same, so that a command finds its variable


def _claimed(base: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0ralph-rpc-ports-{base}")
    except OSError:
        claim.close()
        return None
    return claim


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
