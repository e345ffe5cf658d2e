"""Which requests come in: what the page and `gradio_client` ask for, and nothing else that the kit would answer."""

import re
from pathlib import Path
from urllib.parse import unquote

UPLOAD = "/gradio_api/upload"

_READ, _LOOK, _SEND = ("GET",), ("GET", "HEAD"), ("POST",)

DOORS: tuple[tuple[tuple[str, ...], str], ...] = (
    # The page itself; the kit looks whether it is there when it starts.
    (_LOOK, r"/"),
    (_READ, r"/(assets|static)/.+"),
    (_READ, r"/(favicon\.ico|manifest\.json|robots\.txt|theme\.css)"),
    (_READ, r"/config/?"),
    # How functions are called.
    (_READ, r"/gradio_api/(info/?|theme\.css|app_id/?|startup-events)"),
    (_READ, r"/gradio_api/heartbeat/[^/]{1,64}"),
    (_SEND, r"/gradio_api/queue/join"),
    (_READ, r"/gradio_api/queue/data"),
    (_SEND, r"/gradio_api/call/(v2/)?[^/]+/?"),
    (_READ, r"/gradio_api/call/(v2/)?[^/]+/[^/]+"),
    # The page's own name for what need not wait; the kit refuses everything else there, see `api_open` in `server`.
    (_SEND, r"/gradio_api/run/predict"),
    (_SEND, r"/gradio_api/(cancel|reset/?)"),
    # Photos and downloads.
    (_SEND, UPLOAD),
    (_READ, r"/gradio_api/upload_progress"),
    (_LOOK, r"/gradio_api/file=(?P<file>.+)"),
)
"""Methods and paths, as the kit names them."""

_COMPILED = tuple((methods, re.compile(pattern)) for methods, pattern in DOORS)


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
