"""Sends one notification over HTTP, as a program of its own that the notifier runs under guard: a name server or a proxy
that hangs ends with it.

What is sent, and where, comes by stdin as JSON ({"url", "headers", "body"}): an address may be a secret, and anyone can see a
command line. Says on stdout what went wrong, naming the host alone, and exits with 1. Run by its path with `python -I`, so
that it imports nothing but the standard library, whatever lies in the folder.
"""

import base64
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import Any

TIMEOUT_S = 20
"""For each step of the connection."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the POST into a GET and carry the password elsewhere."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


def send(url: str, headers: dict[str, str], body: str) -> str | None:
    """Posts the body; None, or what went wrong. User and password in the address become a header."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
    if parts.username is not None or parts.password is not None:
        user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        headers = {**headers, "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    request = urllib.request.Request(
        bare.geturl(), body.encode(), {"User-Agent": "ralph-rpc", **headers}, method="POST"
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        moved = " (a redirect: give the address that it leads to)" if 300 <= error.code < 400 else ""
        error.close()
        return f"{host} answers {error.code}{moved}"
    except urllib.error.URLError as error:
        return f"{host} cannot be reached: {_why(error.reason)}"
    except TimeoutError:
        return f"{host} does not answer"
    except (HTTPException, OSError, ValueError) as error:
        return f"{host} does not speak HTTP as expected ({type(error).__name__})"


def _why(reason: object) -> str:
    """The system's words, never the address."""
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return "it does not answer" if isinstance(reason, TimeoutError) else type(reason).__name__


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    problem = send(asked["url"], asked["headers"], asked["body"])
    if problem is not None:
        print(problem)
        sys.exit(1)
