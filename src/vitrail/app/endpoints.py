"""The same for programs: functions that a client calls by name."""

from typing import Any

from gradio.events import api

from vitrail.app.explain_request import ExplainResult
from vitrail.app.requests import Function, Questions
from vitrail.app.service import PROTOCOL, ExplainService, plain, plain_curves
from vitrail.app.ui.errors import refused
from vitrail.core.errors import ImageError

TURNS = "work"
"""Under this name all long work shares its places, whoever asks for it."""

AT_ONCE = 4
"""Questions that are worked on at a time; those for one model take turns."""


def offer_functions(service: ExplainService) -> None:
    """Offer `models`, `methods`, `explain` and `curves` by name, inside a page."""

    @refused
    def models() -> list[str]:
        """Every model on offer; the first is used where none is named."""
        return list(service.pool.names)

    @refused
    def methods(model: str = service.pool.names[0]) -> dict[str, list[str]]:
        """The methods that can explain a model, its own first, and its classes. Loads the model."""
        return {"methods": service.methods(model), "classes": service.classes(model)}

    @refused
    def explain(
        photo: dict[str, Any],
        model: str = service.pool.names[0],
        methods: list[str] | None = None,
        target: str | int | None = None,
    ) -> dict[str, Any]:
        """Explain an uploaded photo: the most probable classes, and the raw numbers of every map."""
        return plain(answered(photo, model, methods, target), parts=True)

    @refused
    def curves(
        photo: dict[str, Any],
        model: str = service.pool.names[0],
        methods: list[str] | None = None,
        target: str | int | None = None,
        protocol: str = PROTOCOL,
    ) -> dict[str, Any]:
        """Measure insertion and deletion of an uploaded photo's maps."""
        [*_, last] = service.curves([answered(photo, model, methods, target)], protocol)
        if not isinstance(last, list):
            raise TypeError(f"expected curves at the end, got {type(last).__name__}")
        return plain_curves(last[0])

    def answered(photo: Any, model: str, methods: list[str] | None, target: str | int | None) -> ExplainResult:
        return service.answer(_path(photo), model, service.methods(model)[:1] if methods is None else methods, target)

    api(models, api_name="models", api_description=models.__doc__)
    for function in (methods, explain, curves):
        api(
            function,
            api_name=function.__name__,
            api_description=function.__doc__,
            concurrency_id=TURNS,
            concurrency_limit=AT_ONCE,
        )


def list_endpoints(page: Any) -> Questions:
    """What may be asked of a page's functions, by the page itself and by programs."""
    offered = page.get_api_info()["named_endpoints"]
    functions, named = dict[int, Function](), dict[str, int]()
    for number, function in page.fns.items():
        if function.fn is None:
            continue  # It runs in the browser.
        parameters = None
        if function.api_visibility == "public":
            named[function.api_name] = number
            described = offered[f"/{function.api_name}"]["parameters"]
            parameters = {one["parameter_name"]: one["parameter_has_default"] for one in described}
        functions[number] = Function(len(function.inputs), function.queue, parameters)
    return Questions(functions, named)


def _path(photo: Any) -> str:
    if not isinstance(photo, dict) or not isinstance(photo.get("path"), str):
        raise ImageError("expected an uploaded photo, got something else; give gradio_client.handle_file(...)")
    return photo["path"]
