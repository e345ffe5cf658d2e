"""Download photos by their URL, within limits of size and time."""

import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from vitrail.core.errors import ImageError
from vitrail.datasets.image_limits import MEGA
from vitrail.version import __version__

MAX_URL_BYTES = 50 * MEGA
MAX_SECONDS = 30.0


def is_url(text: str) -> bool:
    """Return whether a text is a URL of the web rather than a path."""
    return text.lower().startswith(("http://", "https://"))


def download_photo(url: str, max_bytes: int = MAX_URL_BYTES, max_seconds: float = MAX_SECONDS) -> bytes:
    """Download the file of a photo.

    Args:
        url: Of http or https; so must be where it redirects to.
        max_bytes: Largest file.
        max_seconds: Longest time, for the whole file.

    Raises:
        ImageError: The server does not answer or refuses, or the file is too large or takes too long.
    """
    deadline = time.monotonic() + max_seconds
    try:
        if not urlsplit(url).hostname:
            raise ValueError("it names no host")
        with _opener().open(Request(url, headers={"User-Agent": f"vitrail/{__version__}"}), timeout=max_seconds) as response:
            content = bytearray()
            # `read` would wait for a full chunk, and a slow server could take forever.
            while chunk := response.read1(1 << 16):
                content += chunk
                if len(content) > max_bytes:
                    raise ImageError(
                        f"expected a photo of at most {max_bytes / MEGA:,.3g} MB, got a larger file: {url}; scale it down first"
                    )
                if time.monotonic() > deadline:
                    raise ImageError(
                        f"expected the photo within {max_seconds:g} seconds: {url}; download it first and give the file"
                    )
            return bytes(content)
    except HTTPError as error:
        raise ImageError(f"cannot download {url}: the server answered {error.code} {error.reason}") from error
    except (
        OSError,
        ValueError,
        HTTPException,
    ) as error:  # Host not found, timeout, broken connection, malformed URL or answer.
        reason = getattr(error, "reason", None) or error
        raise ImageError(f"cannot download {url}: {reason}; download it first and give the file") from error


def _opener() -> OpenerDirector:
    """Return an opener of http and https alone: a server must not redirect to files of this machine."""
    opener = OpenerDirector()
    handlers = (
        ProxyHandler,
        HTTPHandler,
        HTTPSHandler,
        HTTPRedirectHandler,
        HTTPDefaultErrorHandler,
        HTTPErrorProcessor,
        UnknownHandler,
    )
    for handler in handlers:
        opener.add_handler(handler())
    return opener
