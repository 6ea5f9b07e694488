"""An accelerator that needs no hardware: its tensors compute on the CPU under the name of another
device. Whoever mixes them with tensors of the host fails; whoever makes the host wait is noted.

Importing this gives torch its one device of another kind, for the whole process.
"""

from __future__ import annotations

import itertools
import traceback
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

DEVICE = "standin"
_aten = torch.ops.aten
_READS = {_aten._local_scalar_dense, _aten.is_nonzero, _aten.equal}
_SIZED_BY_VALUES = {_aten.bincount, _aten.masked_select, _aten.nonzero, _aten._unique2}
_INDEXED = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
_STUDY = f"{__file__.rpartition('/tests/')[0]}/study/"


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _convolution(
    images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *rest: Any
) -> torch.Tensor:
    """What autocast does to a convolution on any device; the stand-in casts nothing else."""
    dtype = torch.get_autocast_dtype(DEVICE)
    cast = (each if each is None else each.to(dtype) for each in (images, weight, bias))
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)  # type: ignore[attr-defined]
    with torch._C._ExcludeDispatchKeyGuard(key):
        return _aten.conv2d(*cast, *rest)


_setup_privateuseone_for_python_backend(DEVICE, backend_module=_Backend())
# torch.tensor(..., device=...) then builds on the host and copies where `StandIn` sees it.
torch._C._set_only_lift_cpu_tensors(True)
_LIBRARIES = (torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL"))
_LIBRARIES[0].fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
_LIBRARIES[1].impl("conv2d", _convolution, "AutocastPrivateUse1")


class There(torch.Tensor):
    """A tensor of the stand-in; `here` is its value on the host."""

    here: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> There:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=torch.device(DEVICE, 0),
        )

    def __init__(self, here: torch.Tensor) -> None:
        self.here = here

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise RuntimeError(f"{func} on the stand-in outside of `StandIn`")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.here.__reduce_ex__(protocol)


class StandIn(TorchDispatchMode):
    """Inside, `device="standin"` exists.

    waits: what made the host wait for the device, each with the lines of `study` that led there.
    operations: the names of all that ran on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.operations: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if func.overloadpacket is _aten._to_copy:
            return self._moved(func, args[0], kwargs)
        if func.overloadpacket is _aten.copy_ and len({isinstance(t, There) for t in tensors}) == 2:
            return self._copied(func, args, kwargs)
        ours = any(isinstance(each, There) for each in tensors)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == DEVICE:
            kwargs["device"] = torch.device("cpu")
        elif not ours:
            return func(*args, **kwargs)
        for each in tensors:
            if not isinstance(each, There) and each.ndim:
                raise RuntimeError(f"{func} mixes devices")
        self.operations.add(func.overloadpacket.__name__)
        if func.overloadpacket in _READS | _SIZED_BY_VALUES or (
            func.overloadpacket in _INDEXED
            and any(
                index.dtype == torch.bool for index in tree_leaves(args[1]) if index is not None
            )
        ):
            self._wait(str(func))
        here_args, here_kwargs = tree_map_only(There, lambda each: each.here, (args, kwargs))
        found = tree_map_only(torch.Tensor, There, func(*here_args, **here_kwargs))
        return return_and_correct_aliasing(func, args, kwargs, found) if ours else found

    def _moved(self, func: Any, source: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        device = torch.device(kwargs.get("device") or source.device)
        leaves, arrives = isinstance(source, There), device.type == DEVICE
        if leaves != arrives and not (arrives and kwargs.get("non_blocking")):
            self._wait(f"{source.dtype} to {device.type}")
        if arrives:
            kwargs["device"] = torch.device("cpu")
        found = func(source.here if isinstance(source, There) else source, **kwargs)
        return There(found) if arrives else found

    def _copied(self, func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        target, source, *rest = args
        if isinstance(source, There) or not (rest and rest[0]):
            self._wait(f"{source.dtype} copied to {target.device.type}")
        func(*(each.here if isinstance(each, There) else each for each in args[:2]), *rest)
        return target

    def _wait(self, operation: str) -> None:
        lines = (
            f"{frame.filename.removeprefix(_STUDY)}:{frame.lineno}"
            for frame in reversed(traceback.extract_stack())
            if frame.filename.startswith(_STUDY)
        )
        self.waits.append(" ".join([operation, *itertools.islice(lines, 3)]))
