"""Errors that a user's own network raises while it runs."""

import traceback

LIBRARIES = ("torch", "torchmetrics", "lightning")
"""What these raise is the fault of their callers; metrics and training loops are modules too."""


def describe_network_error(error: Exception) -> str | None:
    """Return where a network raised an error and which; None for an error of vitrail itself, or outside of a network."""
    owner, place, entered = "vitrail.", "", False
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module == "torch.nn.modules.module":
            entered = True
        elif module.partition(".")[0] not in LIBRARIES:
            # What a module calls first is its own code, or a hook, which may be ours.
            owner, entered = (module, False) if entered else (owner, entered)
            place = f"{frame.f_code.co_filename}, line {line}"
    if owner.startswith("vitrail."):
        return None
    text = (str(error).splitlines() or [""])[0]
    return f"{place}, raised {type(error).__name__}{f': {text}' if text else ''}"
