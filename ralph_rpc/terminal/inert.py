"""Makes text harmless before a terminal sees it. Pure.

Everything that came from a model, a file, a ticket or another program passes through here before it is shown,
otherwise it could move the cursor, set the clipboard or turn the line around.
"""

import re

# C0 but TAB and LF, DEL, C1, bidi controls and marks, line and paragraph separators, lone surrogates.
_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def inert(text: str, keep_newlines: bool = True) -> str:
    """The text with every active character replaced by a visible one; TAB and LF stay.

    C0 and DEL become control pictures (ESC is shown as `␛`), all others a Python-like escape (`\\x9b`,
    `\\u202e`). Without `keep_newlines` the result is one line: LF is shown as `␊`, TAB becomes a space.
    """
    if text.isprintable():  # then nothing in it is active
        return text
    text = _ACTIVE.sub(_visible, text)
    return text if keep_newlines else text.replace("\n", "␊").replace("\t", " ")


def inert_json(text: str) -> str:
    """JSON text with every active character as a `\\u` escape: the same value, harmless to print.

    Valid JSON has such characters only within strings (but for CR between tokens, which our files lack).
    """
    return _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
