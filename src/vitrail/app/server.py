"""The server: starts the page offline, within limits, and removes everything when it ends."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vitrail.adapters import Classifier
from vitrail.adapters.loading import check_name
from vitrail.api.loading import load
from vitrail.app.cleanup import drop_idle_sessions, repeat_cleanup
from vitrail.app.environment import LOOPBACK, large_memory_blocks, offline_environment
from vitrail.app.hosts import AllowedHosts, list_allowed_hosts
from vitrail.app.limits import MEGABYTE, Limits
from vitrail.app.log_limits import limited_logs
from vitrail.app.model_pool import ModelPool
from vitrail.app.pending_results import PendingResults
from vitrail.app.temporary_files import TemporaryFolders, temporary_folders
from vitrail.core.errors import InvalidInputError, MissingExtraError, VitrailError

MAX_SESSIONS = 500
"""Sessions whose results are kept in memory; the least recently used one is dropped first."""

CLEANUP_SECONDS = 60

BAD_VALUES = "expected values that the page offers and uploaded photos, got something else; reload the page and try again"


@dataclass(frozen=True)
class RunningServer:
    """A running server.

    Attributes:
        url: Address of the page.
        page: Gradio's `Blocks`.
    """

    url: str
    page: Any

    def wait(self) -> None:
        """Block until the program is interrupted."""
        threading.Event().wait()


@contextmanager
def serving(
    models: Sequence[str],
    host: str = LOOPBACK,
    port: int | None = 7860,
    limits: Limits | None = None,
    max_loaded: int | None = None,
    more_hosts: Sequence[str] = (),
    loader: Callable[[str], Classifier] = load,
) -> Iterator[RunningServer]:
    """Serve the page for the block, then remove all its files.

    Requests that are being worked on when the block ends continue in Gradio's threads, which the interpreter joins when it exits.

    Args:
        models: Names of models that users may choose from; the first is loaded at once.
        host: Address to listen on; others than the loopback let other machines in.
        port: Port; any free one if None.
        limits: Limits of requests.
        max_loaded: Number of models that stay in memory; all if None.
        more_hosts: Additional host names that browsers may use, see `vitrail.app.hosts.list_allowed_hosts`.
        loader: Loads a model by name.

    Raises:
        MissingExtraError: Without the extra `app`.
        InvalidInputError: The port is taken, the address is not of this machine, two models have the same display name, or an
            additional host is malformed.
        UnknownNameError: An unknown model, as far as can be seen without loading it.
        VitrailError: The first model cannot be loaded.
    """
    for name in models:
        check_name(name)
    limits, hosts = limits or Limits(), list_allowed_hosts(host, more_hosts)
    pool = ModelPool(models, max_loaded, loader)
    with (
        temporary_folders() as folders,
        offline_environment(folders.uploads, host),
        large_memory_blocks(),
        limited_logs(),
    ):
        page, pending = _launch(pool, limits, hosts, host, port, folders)

        def clean_up() -> None:
            folders.remove_old(limits.keep_seconds)
            drop_idle_sessions(page.server_app.state_holder, limits.keep_seconds)
            pending.drop_old(limits.keep_seconds)

        try:
            with repeat_cleanup(clean_up, min(limits.keep_seconds, CLEANUP_SECONDS)):
                yield RunningServer(page.local_url, page)
        finally:
            pool.stop()
            page.close(verbose=False)


def _launch(
    pool: ModelPool, limits: Limits, hosts: AllowedHosts, host: str, port: int | None, folders: TemporaryFolders
) -> tuple[Any, PendingResults]:
    try:
        import gradio as gr  # noqa: PLC0415 (an extra; reads the environment when it is imported)

        from vitrail.app.connections import limit_connections  # noqa: PLC0415
        from vitrail.app.endpoints import NUM_WORKERS, list_endpoints  # noqa: PLC0415
        from vitrail.app.middleware import build_middleware  # noqa: PLC0415
        from vitrail.app.ui.events import build_page  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("the web page", "app") from error
    from vitrail.app.service import ExplainService  # noqa: PLC0415
    from vitrail.app.ui.style import CSS, HEAD  # noqa: PLC0415

    page = build_page(ExplainService(pool, limits, folders.uploads), folders)
    _refuse_urls(page)
    _report_bad_values(page)
    # `api_open` would let API clients skip the queue.
    page.queue(max_size=limits.num_waiting, default_concurrency_limit=NUM_WORKERS, api_open=False)
    pending = PendingResults(page._queue, limits.num_waiting)
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
            # Gradio's message counts in 1,048,576 bytes: it has to name the same number as ours.
            max_file_size=limits.num_bytes * 2**20 // MEGABYTE,
            allowed_paths=[],
            state_session_capacity=MAX_SESSIONS,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=gr.themes.Base(font=fonts, font_mono=["ui-monospace", "monospace"]),
            css=CSS,
            head=HEAD,
            app_kwargs={"middleware": build_middleware(limits, folders, hosts, list_endpoints(page), pending)},
        )
    except OSError as error:
        raise InvalidInputError(f"cannot serve on {host}, port {port}: {error}; choose another --port or --host") from error
    except Exception as error:
        # The server may have been started already.
        page.close(verbose=False)
        raise VitrailError(
            f"cannot serve on {host}, port {port}: {type(error).__name__}: {error}; choose another --host, and check that this "
            "machine can connect to itself there"
        ) from error
    limit_connections(page.server.config)
    return page, pending


def _refuse_urls(page: Any) -> None:
    """Prevent all components from fetching URLs that clients send in place of files."""
    for block in page.blocks.values():
        if hasattr(block, "async_move_resource_to_block_cache"):
            block.async_move_resource_to_block_cache = _accept_files_only(block.async_move_resource_to_block_cache)


def _accept_files_only(move: Any) -> Any:
    import gradio as gr  # noqa: PLC0415

    async def move_file(resource: Any) -> Any:
        if resource is not None and "://" in str(resource):
            raise gr.Error("expected an uploaded file, got an address; upload the file itself", print_exception=False)
        return await move(resource)

    return move_file


def _report_bad_values(page: Any) -> None:
    """Report values that the page cannot have sent with a message; Gradio would log a traceback."""
    import gradio as gr  # noqa: PLC0415

    preprocess = page.preprocess_data

    async def preprocess_data(*args: Any, **kwargs: Any) -> Any:
        try:
            return await preprocess(*args, **kwargs)
        except Exception as error:
            message = error.message if isinstance(error, gr.Error) and not error.print_exception else BAD_VALUES
            raise gr.Error(message, print_exception=False) from error

    page.preprocess_data = preprocess_data
