"""Allowlist of requests: those that the page and `gradio_client` need, and nothing else that Gradio could do."""

import re
from pathlib import Path
from urllib.parse import unquote

UPLOAD = "/gradio_api/upload"
DATA = "/gradio_api/queue/data"

QUERY_PARAMETERS = ("session_hash", "upload_id")
"""Query parameters that are passed on; all others are removed."""

CALL = re.compile(r"/gradio_api/call/(v2/)?[^/]+/(?P<event>[\w-]{1,64})", re.ASCII)
"""Path under which a client fetches a result."""

_GET, _GET_HEAD, _POST = ("GET",), ("GET", "HEAD"), ("POST",)

ALLOWED_REQUESTS: tuple[tuple[tuple[str, ...], str], ...] = (
    # The page itself; Gradio requests it when it starts.
    (_GET_HEAD, r"/"),
    (_GET, r"/(assets|static)(/[^/]{1,200}){1,8}"),
    (_GET, r"/(favicon\.ico|manifest\.json|robots\.txt|theme\.css)"),
    (_GET, r"/config/?"),
    # Calls of functions.
    (_GET, r"/gradio_api/(info/?|theme\.css|app_id/?|startup-events)"),
    (_GET, r"/gradio_api/heartbeat/[\w-]{1,64}"),
    (_POST, r"/gradio_api/queue/join"),
    (_GET, DATA),
    (_POST, r"/gradio_api/call/(v2/)?[^/]{1,64}/?"),
    (_GET, CALL.pattern),
    # Calls by the page that skip the queue; Gradio refuses all other functions there, see `api_open` in `server`.
    (_POST, r"/gradio_api/run/predict"),
    (_POST, r"/gradio_api/(cancel|reset/?)"),
    # Photos and downloads.
    (_POST, UPLOAD),
    (_GET, r"/gradio_api/upload_progress"),
    (_GET_HEAD, r"/gradio_api/file=(?P<file>.+)"),
)
"""Methods and patterns of paths."""

_COMPILED = tuple((methods, re.compile(pattern, re.ASCII)) for methods, pattern in ALLOWED_REQUESTS)


def is_allowed(method: str, path: str) -> bool:
    """Return whether a request is allowed.

    Args:
        method: HTTP method.
        path: The decoded path.
    """
    for methods, pattern in _COMPILED:
        if method in methods and (match := pattern.fullmatch(path)):
            file = match.groupdict().get("file")
            return file is None or _is_local(file)
    return False


def _is_local(file: str) -> bool:
    # Gradio would fetch URLs. Checked with and without percent-encoding, since file names may contain percent signs.
    return all(
        Path(path).is_absolute() and not path.startswith(("//", "\\\\")) and "://" not in path and ".." not in Path(path).parts
        for path in (file, unquote(file))
    )
