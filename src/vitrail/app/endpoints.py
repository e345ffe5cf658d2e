"""Endpoints: the functions that API clients call by name."""

from typing import Any

from gradio.events import api

from vitrail.app.explain_request import ExplainResult
from vitrail.app.requests import Endpoint, Endpoints
from vitrail.app.result_json import curves_to_json, result_to_json
from vitrail.app.service import PROTOCOL, ExplainService
from vitrail.app.ui.errors import raise_gradio_errors
from vitrail.core.errors import ImageError

QUEUE = "work"
"""Name of the queue of all long work, of the page and of API clients."""

NUM_WORKERS = 4
"""Requests that are worked on at a time; those for one model take turns."""


def register_endpoints(service: ExplainService) -> None:
    """Register `models`, `methods`, `explain` and `curves`, inside a Gradio page."""

    @raise_gradio_errors
    def models() -> list[str]:
        """List the models; the first is the default."""
        return list(service.pool.names)

    @raise_gradio_errors
    def methods(model: str = service.pool.names[0]) -> dict[str, list[str]]:
        """List the methods that can explain a model, its default first, and its classes. Loads the model."""
        return {"methods": service.list_methods(model), "classes": service.list_classes(model)}

    @raise_gradio_errors
    def explain(
        photo: dict[str, Any],
        model: str = service.pool.names[0],
        methods: list[str] | None = None,
        target: str | int | None = None,
    ) -> dict[str, Any]:
        """Explain an uploaded photo: the most probable classes, and the raw relevance of every method."""
        return result_to_json(explain_upload(photo, model, methods, target), parts=True)

    @raise_gradio_errors
    def curves(
        photo: dict[str, Any],
        model: str = service.pool.names[0],
        methods: list[str] | None = None,
        target: str | int | None = None,
        protocol: str = PROTOCOL,
    ) -> dict[str, Any]:
        """Measure the insertion and deletion curves of an uploaded photo."""
        [*_, last] = service.measure_curves([explain_upload(photo, model, methods, target)], protocol)
        if not isinstance(last, list):
            raise TypeError(f"expected curves as the last item, got {type(last).__name__}")
        return curves_to_json(last[0])

    def explain_upload(photo: Any, model: str, methods: list[str] | None, target: str | int | None) -> ExplainResult:
        return service.explain(_get_path(photo), model, service.list_methods(model)[:1] if methods is None else methods, target)

    api(models, api_name="models", api_description=models.__doc__)
    for function in (methods, explain, curves):
        api(
            function,
            api_name=function.__name__,
            api_description=function.__doc__,
            concurrency_id=QUEUE,
            concurrency_limit=NUM_WORKERS,
        )


def list_endpoints(page: Any) -> Endpoints:
    """List the functions that the page and API clients may call.

    Args:
        page: Gradio's `Blocks`.
    """
    named_endpoints = page.get_api_info()["named_endpoints"]
    functions, named = dict[int, Endpoint](), dict[str, int]()
    for number, function in page.fns.items():
        if function.fn is None:
            continue  # It runs in the browser.
        parameters = None
        if function.api_visibility == "public":
            named[function.api_name] = number
            parameters = {
                parameter["parameter_name"]: parameter["parameter_has_default"]
                for parameter in named_endpoints[f"/{function.api_name}"]["parameters"]
            }
        functions[number] = Endpoint(len(function.inputs), function.queue, parameters)
    return Endpoints(functions, named)


def _get_path(photo: Any) -> str:
    if not isinstance(photo, dict) or not isinstance(photo.get("path"), str):
        raise ImageError("expected an uploaded photo, got something else; pass gradio_client.handle_file(...)")
    return photo["path"]
