"""Starting the page, so that it asks nobody outside for anything, and leaves nothing behind."""

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.app.shelf import ModelShelf
from vitrail.app.uploads import Limits
from vitrail.errors import InvalidInputError, MissingExtraError

LOOPBACK = "127.0.0.1"
AT_ONCE = 4
"""Requests of a kind that are worked on at a time; those for one model take turns."""

SESSIONS = 200
"""Visitors whose answers are kept in memory."""

OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_ALLOWED_PATHS": "",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True)
class Running:
    """A page that is served.

    Attributes:
        url: Where.
        page: The kit's own object.
    """

    url: str
    page: Any

    def wait(self) -> None:
        """Until the program is interrupted."""
        threading.Event().wait()


@contextmanager
def serving(
    models: Sequence[str],
    host: str = LOOPBACK,
    port: int | None = 7860,
    limits: Limits | None = None,
    most_models: int | None = None,
) -> Iterator[Running]:
    """Serve the page for the time of the block; then all files of it are gone.

    Args:
        models: Names that visitors may choose from; the first is loaded at once.
        host: Address to listen on; others than the loopback let other machines in.
        port: Port; any free one if None.
        limits: Of what visitors may ask for.
        most_models: At most so many are kept in memory.

    Raises:
        MissingExtraError: Without the extra `app`.
        InvalidInputError: The port is taken, or the address is not of this machine.
        VitrailError: The first model cannot be loaded.
    """
    limits, shelf = limits or Limits(), ModelShelf(models, most_models)
    with tempfile.TemporaryDirectory(prefix="vitrail-serve-") as name:
        folder = Path(name).resolve()
        uploads, downloads = folder / "uploads", folder / "downloads"
        uploads.mkdir()
        downloads.mkdir()
        with _environment(OFFLINE | {"GRADIO_TEMP_DIR": str(uploads)}):
            page = _launched(shelf, limits, host, port, uploads, downloads)
            try:
                yield Running(page.local_url, page)
            finally:
                page.close(verbose=False)


def _launched(shelf: ModelShelf, limits: Limits, host: str, port: int | None, uploads: Path, downloads: Path) -> Any:
    try:
        import gradio as gr  # noqa: PLC0415 (an extra; reads the environment when it is imported)

        from vitrail.app.guards import guards  # noqa: PLC0415
        from vitrail.app.page import build_page  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("the web page", "app") from error
    from vitrail.app.desk import Desk  # noqa: PLC0415
    from vitrail.app.style import CSS, HEAD  # noqa: PLC0415

    page = build_page(Desk(shelf, limits, uploads), downloads)
    _refuse_addresses(page)
    page.queue(max_size=limits.num_waiting, default_concurrency_limit=AT_ONCE)
    fonts = ["system-ui", "sans-serif"]
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            max_file_size=limits.num_bytes,
            allowed_paths=[],
            state_session_capacity=SESSIONS,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=gr.themes.Base(font=fonts, font_mono=["ui-monospace", "monospace"]),
            css=CSS,
            head=HEAD,
            app_kwargs={"middleware": guards()},
        )
    except OSError as error:
        raise InvalidInputError(f"cannot serve on {host}, port {port}: {error}; choose another --port or --host") from error
    return page


def _refuse_addresses(page: Any) -> None:
    """Let no part of the page fetch what a visitor gives the address of."""
    for block in page.blocks.values():
        if hasattr(block, "async_move_resource_to_block_cache"):
            block.async_move_resource_to_block_cache = _only_files(block.async_move_resource_to_block_cache)


def _only_files(move: Any) -> Any:
    import gradio as gr  # noqa: PLC0415

    async def checked(resource: Any) -> Any:
        if resource is not None and "://" in str(resource):
            raise gr.Error("expected an uploaded file, got an address; upload the file itself", print_exception=False)
        return await move(resource)

    return checked


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
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
