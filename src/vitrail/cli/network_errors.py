"""Errors that a user's own network raises while it runs."""

import traceback

LIBRARIES = ("torch", "torchmetrics", "lightning")
"""What these raise is the fault of their callers; metrics and training loops are modules too."""


def describe_network_error(error: Exception) -> str | None:
    """Return where a network raised an error and which; None for an error of vitrail itself, or outside of a network."""
    called, last = False, None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        called = called or module == "torch.nn.modules.module"
        if called and module.partition(".")[0] not in LIBRARIES:
            last = (module, frame.f_code.co_filename, line)
    if last is None or last[0].startswith("vitrail."):
        return None
    text = (str(error).splitlines() or [""])[0]
    return f"{last[1]}, line {last[2]}, raised {type(error).__name__}{f': {text}' if text else ''}"
