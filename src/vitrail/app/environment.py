"""What the kit reads from the environment: it asks nobody outside, and finds itself without a proxy."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def offline_environment(uploads: Path, host: str) -> Iterator[None]:
    """Have the environment that the kit needs for the time of the block.

    Args:
        uploads: Where it puts files.
        host: Where it listens; it asks itself whether it is there, and a proxy would not know.
    """
    direct = without_proxy(os.environ, host)
    wanted = OFFLINE | {"GRADIO_TEMP_DIR": str(uploads), "NO_PROXY": direct, "no_proxy": direct}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def without_proxy(environment: Mapping[str, str], host: str) -> str:
    """Hosts that are asked directly: those of the environment, this machine, and the host that is listened on."""
    told = [name.strip() for key in ("NO_PROXY", "no_proxy") for name in environment.get(key, "").split(",")]
    return ",".join(dict.fromkeys(name for name in [*told, *LOOPBACKS, host.strip("[]")] if name))
