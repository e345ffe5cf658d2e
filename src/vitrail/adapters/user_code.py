"""Networks and adapters that a user's own code builds: the code that the user names is run, and no other."""

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from vitrail.adapters.adapting import adapt
from vitrail.adapters.classifier import Classifier
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError, VitrailError
from vitrail.core.outputs import Output

FILE = re.compile(r"(?P<file>.+\.py):(?P<function>[^:/\\]+)")
MODULE = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)+):(?P<function>[A-Za-z_]\w*)")


def is_user_code(name: str) -> bool:
    """Return whether a model's name is a function in Python code: `path/file.py:function` or `package.module:function`."""
    return bool(FILE.fullmatch(name) or MODULE.fullmatch(name))


def check_user_code(name: str) -> None:
    """Check a name of user code without running it.

    Raises:
        UnknownNameError: There is no such file.
    """
    match = FILE.fullmatch(name)
    if match and not Path(match["file"]).is_file():
        raise UnknownNameError(f"no such file: {match['file']!r}, of which {match['function']} should build the network")


def load_user_code(
    name: str, output: Output | None = None, output_key: int | str | None = None, **arguments: Any
) -> Classifier:
    """Call a user's function, and adapt the network that it returns.

    Args:
        name: `path/file.py:function` or `package.module:function`. The function returns a `torch.nn.Module` or a `Classifier`.
        output: Meaning of the logits of a network, see `vitrail.adapt`.
        output_key: Index or key of the logits in what a network returns.
        arguments: Arguments of the function.

    Raises:
        UnknownNameError: There is no such file or function.
        InvalidInputError: The code raised an error, or the function does not take these arguments.
        UnsupportedModelError: It returned something else.
    """
    check_user_code(name)
    where, _, function = name.rpartition(":")
    with _importable(Path(where).resolve().parent if where.endswith(".py") else Path.cwd()):
        with _errors_of(where):
            module = _import_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        build = getattr(module, function, None)
        if not callable(build):
            functions = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
            raise UnknownNameError(
                f"expected a function {function!r} in {where}, found {'none' if build is None else 'no function'}; it has "
                f"{', '.join(functions) or 'no functions'}"
            )
        _check_arguments(build, arguments, name)
        with _errors_of(where):
            built = build(**arguments)
    if isinstance(built, Classifier):
        given: dict[str, Any] = {"output": output, "output_key": output_key}
        return replace(built, **{field: value for field, value in given.items() if value is not None})
    if isinstance(built, nn.Module):
        return adapt(built, name=function, output=output, output_key=output_key)
    raise UnsupportedModelError(f"expected {name} to return a torch.nn.Module or a Classifier, got {type(built).__name__}")


def _import_file(path: Path) -> ModuleType:
    # Not under its own name, which may be that of an installed package.
    spec = importlib.util.spec_from_file_location(f"vitrail_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UnknownNameError(f"expected a file of Python code, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Data classes look their module up there.
    spec.loader.exec_module(module)
    return module


def _check_arguments(build: Callable[..., Any], arguments: dict[str, Any], name: str) -> None:
    try:
        signature = inspect.signature(build)
        signature.bind(**arguments)
    except ValueError:  # Some callables have no signature.
        return
    except TypeError as error:
        raise InvalidInputError(
            f"cannot call {name} with {', '.join(arguments) or 'no arguments'}: {error}; its arguments are {signature}; give them by "
            "--model-arg"
        ) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let code import its neighbors, as `python file.py` does."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _errors_of(where: str) -> Iterator[None]:
    """Turn an error of a user's code into one message with the last place in that code."""
    try:
        yield
    except VitrailError:
        raise
    except SyntaxError as error:
        raise InvalidInputError(f"cannot run {error.filename or where}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if where.endswith(".py") and Path(frame.filename).resolve() == Path(where).resolve()]
        foreign = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
        place = next(iter((own or foreign)[-1:]), None)
        line = f"{place.filename if not own else where}, line {place.lineno}" if place else where
        text = str(error).splitlines()[0] if str(error) else ""
        raise InvalidInputError(f"{line} raised {type(error).__name__}{f': {text}' if text else ''}") from error
