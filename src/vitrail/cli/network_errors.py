"""Errors that a user's own network raises while it runs."""

import traceback


def describe_network_error(error: Exception) -> str | None:
    """Return where a network raised an error and which; None for an error of vitrail itself, or outside of a network."""
    called, last = False, None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        called = called or module == "torch.nn.modules.module"
        if called and not module.startswith("torch."):  # What torch raises is the fault of its caller.
            last = (module, frame.f_code.co_filename, line)
    if last is None or last[0].startswith("vitrail."):
        return None
    text = (str(error).splitlines() or [""])[0]
    return f"{last[1]}, line {last[2]}, raised {type(error).__name__}{f': {text}' if text else ''}"
