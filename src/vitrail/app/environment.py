"""The environment of the server process: Gradio offline and without proxies, Pillow with large memory blocks."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

LOOPBACK = "127.0.0.1"
LOOPBACKS = (LOOPBACK, "localhost", "::1")

OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_ALLOWED_PATHS": "",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

BLOCK_SIZE = 64 * 1024 * 1024
"""Bytes of Pillow's memory blocks. The C library keeps smaller blocks for the thread that freed them, up to gigabytes in all."""


@contextmanager
def offline_environment(uploads: Path, host: str) -> Iterator[None]:
    """Set the environment variables of Gradio for the block, then restore them.

    Args:
        uploads: The folder for uploaded files.
        host: The address to listen on. Gradio requests its own page when it starts, which would fail through a proxy.
    """
    hosts = extend_no_proxy(os.environ, host)
    variables = OFFLINE | {"GRADIO_TEMP_DIR": str(uploads), "NO_PROXY": hosts, "no_proxy": hosts}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def extend_no_proxy(environment: Mapping[str, str], host: str) -> str:
    """Return the value of NO_PROXY: its present hosts, the loopback, and the address to listen on."""
    present = [name.strip() for key in ("NO_PROXY", "no_proxy") for name in environment.get(key, "").split(",")]
    return ",".join(dict.fromkeys(name for name in [*present, *LOOPBACKS, host.strip("[]")] if name))


@contextmanager
def large_memory_blocks() -> Iterator[None]:
    """Let Pillow allocate images in large blocks, which are returned to the system, for the block."""
    core: Any = Image.core  # type: ignore[attr-defined]
    before = core.get_block_size()
    core.set_block_size(BLOCK_SIZE)
    try:
        yield
    finally:
        core.set_block_size(before)
