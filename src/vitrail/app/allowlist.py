"""Which requests come in: what the page and `gradio_client` ask for, and nothing else that the kit would answer."""

import re
from pathlib import Path
from urllib.parse import unquote

UPLOAD = "/gradio_api/upload"
DATA = "/gradio_api/queue/data"

NAMED = ("session_hash", "upload_id")
"""What may stand behind the question mark; the kit does not hear of anything else."""

CALL = re.compile(r"/gradio_api/call/(v2/)?[^/]+/(?P<event>[\w-]{1,64})", re.ASCII)
"""Where the answer to a question is fetched."""

_READ, _LOOK, _SEND = ("GET",), ("GET", "HEAD"), ("POST",)

ALLOWED_REQUESTS: tuple[tuple[tuple[str, ...], str], ...] = (
    # The page itself; the kit looks whether it is there when it starts.
    (_LOOK, r"/"),
    (_READ, r"/(assets|static)(/[^/]{1,200}){1,8}"),
    (_READ, r"/(favicon\.ico|manifest\.json|robots\.txt|theme\.css)"),
    (_READ, r"/config/?"),
    # How functions are called.
    (_READ, r"/gradio_api/(info/?|theme\.css|app_id/?|startup-events)"),
    (_READ, r"/gradio_api/heartbeat/[\w-]{1,64}"),
    (_SEND, r"/gradio_api/queue/join"),
    (_READ, DATA),
    (_SEND, r"/gradio_api/call/(v2/)?[^/]{1,64}/?"),
    (_READ, CALL.pattern),
    # The page's own name for what need not wait; the kit refuses everything else there, see `api_open` in `server`.
    (_SEND, r"/gradio_api/run/predict"),
    (_SEND, r"/gradio_api/(cancel|reset/?)"),
    # Photos and downloads.
    (_SEND, UPLOAD),
    (_READ, r"/gradio_api/upload_progress"),
    (_LOOK, r"/gradio_api/file=(?P<file>.+)"),
)
"""Methods and paths, as the kit names them."""

_COMPILED = tuple((methods, re.compile(pattern, re.ASCII)) for methods, pattern in ALLOWED_REQUESTS)


def is_open(method: str, path: str) -> bool:
    """Whether a request is let in.

    Args:
        method: Of HTTP.
        path: Decoded, as the server reads it.
    """
    for methods, pattern in _COMPILED:
        if method in methods and (found := pattern.fullmatch(path)):
            file = found.groupdict().get("file")
            return file is None or _is_local(file)
    return False


def _is_local(file: str) -> bool:
    # The kit would fetch an address for whoever asks; a percent sign in a photo's name must not hide one.
    return all(
        Path(each).is_absolute() and not each.startswith(("//", "\\\\")) and "://" not in each and ".." not in Path(each).parts
        for each in (file, unquote(file))
    )
