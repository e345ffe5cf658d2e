"""A device that is none: what a GPU refuses is refused on a machine without one.

Tensors of the device are `OnDevice`: they say that they lie on `lazy:0`, which nobody has and which torch needs no driver for, and
hold a tensor of the CPU that does the work. `PretendDevice` is a mode: while it is entered, everything that is made on the device, or
brought there, is an `OnDevice`, and an operation that meets tensors of the device and of the CPU raises `MixedDevicesError`:

    with PretendDevice() as device:
        network.to(device)
        network(images.to(device)).cpu()

It is stricter than CUDA in one thing, since other devices are: indices and masks have to lie on the device too. As on CUDA, numbers
of the CPU (tensors without dimensions) may meet tensors of the device in arithmetic, `copy_` goes from anywhere to anywhere, and
`numpy()` needs `cpu()` before. What the code under test catches on its way is raised again on leaving.

All sums are done by the CPU's kernels: it finds what is at the wrong place, never a wrong number.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("lazy", 0)

aten = torch.ops.aten

CROSSING = {aten.copy_.default, aten._to_copy.default}
"""What may take from one device and give to another."""

WITH_NUMBERS = {
    *(aten.fill_.Tensor, aten.fill.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor),
    *(aten.where.self, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default),
}
"""Besides arithmetic, what may meet a number of the CPU."""


class MixedDevicesError(RuntimeError):
    """Tensors of the device and of the CPU met."""


class OnDevice(Tensor):
    """A tensor that lies on the pretended device.

    Attributes:
        held: The tensor of the CPU that does the work.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    # Results are what the operations below return, and not made into this class again: `cpu()` gives a plain tensor.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """torch refuses it of its subclasses; devices have it."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """As devices have it: asked for by force only."""
        if not force:
            raise TypeError(f"expected a tensor of the CPU, got one of {self.device}; call cpu() before numpy()")
        return self.detach().cpu().numpy()

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.held!r})"


class PretendDevice(TorchDispatchMode):
    """While entered, there is such a device.

    Args:
        without: Types of numbers that it does not have: MPS and TPUs have no double precision.
        indices_anywhere: Whether tensors of the device may be indexed by such of the CPU, as devices allow.
    """

    def __init__(self, without: Sequence[torch.dtype] = (), indices_anywhere: bool = False) -> None:
        super().__init__()
        self.without, self.faults = tuple(without), list[Exception]()
        self.crossing = CROSSING | ({aten.index.Tensor} if indices_anywhere else set())

    def __enter__(self) -> torch.device:  # type: ignore[override]
        # Else `torch.tensor(..., device=...)` asks for memory of the device, of which there is none, instead of a copy.
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return DEVICE

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        super().__exit__(kind, error, traceback)
        torch._C._set_only_lift_cpu_tensors(self._lifted)
        if self.faults and error is None:
            raise self.faults[0]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            result = run(func, args, kwargs or {}, self.crossing)
            for made in tensors_of(result):
                if isinstance(made, OnDevice) and made.dtype in self.without:
                    raise TypeError(f"{func}: the device has no {made.dtype}")
        except (MixedDevicesError, TypeError) as fault:
            self.faults.append(fault)
            raise
        return result


def run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], crossing: Set[Any] = frozenset(CROSSING)) -> Any:
    """Do an operation with the tensors that are held, and say where its result lies.

    Args:
        func: The operation.
        args: What it is given.
        kwargs: By name.
        crossing: What may take from one device and give to another.

    Raises:
        MixedDevicesError: It meets tensors of the device and of the CPU.
    """
    tensors = list(tensors_of([*args, *kwargs.values()]))
    there = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    if func not in crossing:
        refuse_mixed(func, tensors, there)
    wanted = kwargs.get("device")
    if (there or wanted == DEVICE) and kwargs.get("generator") is not None:
        raise MixedDevicesError(f"{func}: expected a generator on one device with what it fills, got one of the CPU")
    held_args = changed(args, lambda tensor: tensor.held if isinstance(tensor, OnDevice) else tensor)
    held_kwargs = {name: value.held if isinstance(value, OnDevice) else value for name, value in kwargs.items()}
    if wanted == DEVICE:
        held_kwargs["device"] = torch.device("cpu")
    result = func(*held_args, **held_kwargs)
    if func is aten.copy_.default:
        return args[0]
    if not (wanted == DEVICE or (there and wanted is None)):
        return result
    # In place: the very tensor comes back, else it would be another one to autograd.
    same = {id(tensor.held): tensor for tensor in there}
    return changed(result, lambda tensor: same[id(tensor)] if id(tensor) in same else OnDevice(tensor))


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in what an operation takes or gives: one, or lists of them. Faster than torch's trees."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_of(part)


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with other tensors."""
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(changed(part, change) for part in value) if isinstance(value, list | tuple) else value


def refuse_mixed(func: Any, tensors: Sequence[Tensor], there: Sequence[Tensor]) -> None:
    """Refuse tensors of both devices where CUDA, or one of the others, does."""
    if not there or len(there) == len(tensors):
        return
    with_numbers = torch.Tag.pointwise in func.tags or func in WITH_NUMBERS
    if all(isinstance(tensor, OnDevice) or (with_numbers and tensor.ndim == 0) for tensor in tensors):
        return
    places = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
    raise MixedDevicesError(f"{func}: expected all tensors on one device, got {places}")
