"""Texts that a person wrote: read whole and checked, with one clear line where they cannot be used. Only reads."""

from pathlib import Path

from ralph_rpc.errors import UsageError
from ralph_rpc.files.atomic import read_plain

LARGEST_FILE = 1 << 20
"""Bytes."""


def read_text(path: Path) -> str:
    """A text that a person wrote: a regular file, UTF-8, not blank, at most 1 MiB. Raises UsageError."""
    try:
        if not path.is_file():
            raise UsageError(f"{str(path)!r} is not a file" if path.exists() else f"there is no file {str(path)!r}")
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return decode_text(data, repr(str(path)))


def read_own_text(path: Path) -> str:
    """The same of a file below .ralph, where no link is followed and no other user's file counts."""
    try:
        data = read_plain(path, LARGEST_FILE, follow=False)
    except FileNotFoundError:
        raise UsageError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return decode_text(data, repr(str(path)))


def decode_text(data: bytes, what: str) -> str:
    """UTF-8 that is not blank and at most 1 MiB, with or without a BOM. Raises UsageError."""
    if len(data) > LARGEST_FILE:
        raise UsageError(f"{what} is larger than 1 MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
    if not text.strip():
        raise UsageError(f"{what} is empty")
    return text
