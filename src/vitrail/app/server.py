"""Starting the page, so that it asks nobody outside for anything, and leaves nothing behind."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vitrail.adapters.loading import check_name
from vitrail.app.cleanup import repeat_cleanup
from vitrail.app.environment import LOOPBACK, offline_environment
from vitrail.app.hosts import AllowedHosts, allowed_hosts
from vitrail.app.log_limits import seldom
from vitrail.app.memory import returned_memory
from vitrail.app.model_pool import ModelPool
from vitrail.app.pending_results import Unread
from vitrail.app.sessions import drop_idle
from vitrail.app.temporary_files import Folders, temporary_folders
from vitrail.app.uploads import Limits
from vitrail.core.errors import InvalidInputError, MissingExtraError, VitrailError

SESSIONS = 500
"""Visitors whose answers are kept in memory at a time; who asked longest ago is forgotten first."""

SWEEP_SECONDS = 60

BAD_VALUES = (
    "expected values that the page offers, and photos that were uploaded, got something else; reload the page, and try again"
)


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
    more_hosts: Sequence[str] = (),
) -> Iterator[Running]:
    """Serve the page for the time of the block; then all files of it are gone.

    What is being worked on when the block ends goes on in threads of the kit, for which the interpreter waits when it ends.

    Args:
        models: Names that visitors may choose from; the first is loaded at once.
        host: Address to listen on; others than the loopback let other machines in.
        port: Port; any free one if None.
        limits: Of what visitors may ask for.
        most_models: At most so many are kept in memory.
        more_hosts: Further host names that browsers may ask for, see `vitrail.app.hosts.allowed_hosts`.

    Raises:
        MissingExtraError: Without the extra `app`.
        InvalidInputError: The port is taken, or the address is not of this machine; or two paths of models end in the same name; or a
            further host is no name.
        UnknownNameError: A name of no model, as far as can be told without loading it.
        VitrailError: The first model cannot be loaded.
    """
    for name in models:
        check_name(name)
    limits, hosts = limits or Limits(), allowed_hosts(host, more_hosts)
    pool = ModelPool(models, most_models)
    with temporary_folders() as folders, offline_environment(folders.uploads, host), returned_memory(), seldom():
        page, unread = _launched(pool, limits, hosts, host, port, folders)

        def sweep() -> None:
            folders.sweep(limits.keep_seconds)
            drop_idle(page.server_app.state_holder, limits.keep_seconds)
            unread.forget(limits.keep_seconds)

        try:
            with repeat_cleanup(sweep, min(limits.keep_seconds, SWEEP_SECONDS)):
                yield Running(page.local_url, page)
        finally:
            pool.stop()
            page.close(verbose=False)


def _launched(
    pool: ModelPool, limits: Limits, hosts: AllowedHosts, host: str, port: int | None, folders: Folders
) -> tuple[Any, Unread]:
    try:
        import gradio as gr  # noqa: PLC0415 (an extra; reads the environment when it is imported)

        from vitrail.app.connections import limit_connections  # noqa: PLC0415
        from vitrail.app.endpoints import AT_ONCE, list_endpoints  # noqa: PLC0415
        from vitrail.app.middleware import build_middleware  # noqa: PLC0415
        from vitrail.app.ui.events import build_page  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("the web page", "app") from error
    from vitrail.app.service import ExplainService  # noqa: PLC0415
    from vitrail.app.ui.style import CSS, HEAD  # noqa: PLC0415

    page = build_page(ExplainService(pool, limits, folders.uploads), folders)
    _refuse_addresses(page)
    _tell_bad_values(page)
    # Closed to those who would not wait for their turn.
    page.queue(max_size=limits.num_waiting, default_concurrency_limit=AT_ONCE, api_open=False)
    unread = Unread(page._queue, limits.num_waiting)
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
            app_kwargs={"middleware": build_middleware(limits, folders, hosts, list_endpoints(page), unread)},
        )
    except OSError as error:
        raise InvalidInputError(f"cannot serve on {host}, port {port}: {error}; choose another --port or --host") from error
    except Exception as error:
        # It may have come half the way.
        page.close(verbose=False)
        raise VitrailError(
            f"cannot serve on {host}, port {port}: {type(error).__name__}: {error}; choose another --host, and check that this machine "
            "can reach itself there"
        ) from error
    limit_connections(page.server.config)
    return page, unread


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


def _tell_bad_values(page: Any) -> None:
    """Have values that no part of the page could have sent end in a sentence; the kit would write a traceback to the log."""
    import gradio as gr  # noqa: PLC0415

    preprocess = page.preprocess_data

    async def checked(*arguments: Any, **named: Any) -> Any:
        try:
            return await preprocess(*arguments, **named)
        except Exception as error:
            words = error.message if isinstance(error, gr.Error) and not error.print_exception else BAD_VALUES
            raise gr.Error(words, print_exception=False) from error

    page.preprocess_data = checked
