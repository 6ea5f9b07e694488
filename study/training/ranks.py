"""Several processes that train one trial: each takes a share of every batch.

Rank 0 is the process that calls `train`. It starts the others on its own machine and ends them with
itself. The ranks draw the same batches; rank r of N runs the model on the images

    [floor(r b / N), floor((r + 1) b / N))    of a batch of b

and all logits, labels and a teacher's soft labels are then gathered to every rank, which computes
the loss of the whole batch. So every loss, with its batch sums, thresholds and running state, is
that of one process. Its gradient by the logits of the rank's own images goes back through the
model, and the gradients of the parameters are summed over the ranks. Batch norm in training takes
its mean and variance over the images of all ranks. Random numbers of the model itself (dropout) are
drawn by each rank for its own images: those of rank 0 as in one process, those of the others from
the seed, the rank and the epoch.

NCCL connects GPUs, Gloo CPUs; both by the loopback interface alone.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.overrides import TorchFunctionMode

from study.config.task import TaskConfig
from study.core.console import CLUSTER_GONE
from study.core.errors import InputError, deed, is_out_of_memory
from study.core.names import MOST_RANKS
from study.training.child import started

KEY = "--ranks"
PATIENCE = timedelta(days=7)  # what hangs is the study's watchdog's to find
ERROR_SECONDS = 10.0  # for a rank to say why it ends
STUCK_SECONDS = 60.0
READY, ERROR = "ready", "error"
MEMORY, GPU_MEMORY, DEVICE = "memory", "gpu", "device"
INPUT, LOST, OTHER = "input", "lost", "other"
_STREAM = 2  # besides those of `batches`


class RankLost(OSError):
    """A rank has ended, by no fault of the training."""

    def __init__(self, text: str) -> None:
        super().__init__(CLUSTER_GONE, text)


def check_ranks(task: TaskConfig, ranks: int, num_images: int, *, key: str = KEY) -> None:
    """Refuse a number of ranks for whose shares a task has too few images in a batch.

    num_images: of train. key: the flag that asks for the ranks.

    Raises:
        InputError: where a batch has fewer images than there are ranks.
    """
    if not 1 <= ranks <= MOST_RANKS:
        raise InputError(f"ranks must be from 1 to {MOST_RANKS}, got {ranks}", key=key)
    batch = min(task.batch_size, num_images)
    if batch < ranks:
        raise InputError(
            f"{ranks} ranks cannot share a batch of {batch} images",
            hint="each needs one at least: take fewer ranks, or a larger batch_size",
            key=key,
        )


class Ranks:
    """What one rank does together with the others.

    rank: from 0. size: how many there are; of one alone nothing is sent.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    def share(self, count: int) -> slice:
        """The part of `count` images that is this rank's."""
        return slice(*(count * rank // self.size for rank in (self.rank, self.rank + 1)))

    def whole(self, part: Tensor, count: int) -> Tensor:
        """The rows of all ranks (count, ...) from those of this one's share, on every rank. Its
        gradient by the rank's own rows is that of a loss which every rank computes of the whole."""
        if self.size == 1:
            return part
        return _Whole.apply(part, self, count)

    def gathered(self, part: Tensor, count: int) -> Tensor:
        """As `whole`, without a gradient."""
        if self.size == 1:
            return part
        largest = -(-count // self.size)
        padded = part.new_zeros(largest, *part.shape[1:])
        padded[: len(part)] = part
        sent = padded.flatten().view(torch.uint8)
        got = sent.new_empty(self.size * len(sent))
        with _connection_checked():
            distributed.all_gather_into_tensor(got, sent)
        rows = got.view(part.dtype).view(self.size, largest, *part.shape[1:])
        sizes = [Ranks(rank, self.size).share(count) for rank in range(self.size)]
        return torch.cat(
            [row[: one.stop - one.start] for row, one in zip(rows, sizes, strict=True)]
        )

    def labels(self, part: Tensor, count: int) -> Tensor:
        """As `gathered`, for labels from 0 to 255, which are sent as bytes."""
        if self.size == 1:
            return part
        return self.gathered(part.to(torch.uint8), count).to(part.dtype)

    def sum_gradients(self, model: nn.Module) -> None:
        """Sum the gradients of a model's parameters over the ranks, in place."""
        if self.size > 1:
            grads = [each.grad for each in model.parameters() if each.grad is not None]
            _in_one(grads, distributed.all_reduce)

    def same(self, model: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0."""
        if self.size > 1:
            tensors = [each.detach() for each in (*model.parameters(), *model.buffers())]
            _in_one(tensors, lambda flat: distributed.broadcast(flat, 0))

    def agree(self, what: Any, words: str) -> None:
        """Raise InputError where the ranks do not have the same plain value."""
        if self.size == 1:
            return
        found: list[Any] = [None] * self.size
        with _connection_checked():
            distributed.all_gather_object(found, what)
        if any(one != found[0] for one in found):
            raise InputError(f"the ranks do not have the same {words}: {found}", key=KEY)

    def sync(self, metrics: Any) -> None:
        """Add up the metrics of the ranks, in their order."""
        if self.size > 1:
            with _connection_checked():
                metrics.sync()

    def batch_norm(self) -> AbstractContextManager[Any]:
        """A context in which batch norm in training is over the images of all ranks."""
        return _BatchNorm() if self.size > 1 else nullcontext()

    def seed(self, seed: int, epoch: int) -> int:
        """Of the random numbers of a model on this rank in one epoch."""
        words = np.random.SeedSequence([seed, _STREAM, self.rank, epoch])
        return int(words.generate_state(1, np.uint64)[0] >> 1)


ALONE = Ranks()


@contextmanager
def _connection_checked() -> Iterator[None]:
    """Turn the error of a connection that has ended into RankLost."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        raise RankLost(f"the ranks have lost each other: {str(error)[:200]}") from error


def _in_one(tensors: Iterable[Tensor], call: Callable[[Tensor], Any]) -> None:
    """Call a collective on all tensors in place, as one vector of each dtype."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for group in by_dtype.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        with _connection_checked():
            call(flat)
        for tensor, part in zip(group, flat.split([one.numel() for one in group]), strict=True):
            tensor.copy_(part.view(tensor.shape))


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks, count: int) -> Tensor:
        ctx.share = ranks.share(count)
        return ranks.gathered(part.detach(), count)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return upstream[0][ctx.share], None, None


class _Sum(torch.autograd.Function):
    """The sum over all ranks, of which every rank uses the result."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        whole = part.clone()
        with _connection_checked():
            distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor]:
        return (_Sum.forward(ctx, upstream[0].contiguous()),)


class _BatchNorm(TorchFunctionMode):
    """Replaces `torch.nn.functional.batch_norm` in training, whichever module calls it."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`, with mean and variance over the images of all ranks.

    float64 is computed in float64, all others in float32. The running variance is the unbiased one,
    as in one process.
    """
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    x = input if input.dtype == torch.float64 else input.float()
    over = [0, *range(2, x.dim())]
    shape = (1, -1, *[1] * (x.dim() - 2))
    pixels = x.new_full((1,), x.numel() / max(1, x.shape[1]))
    sums = _Sum.apply(torch.cat([x.sum(over), pixels]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = x - mean.view(shape)
    var = _Sum.apply(centred.square().sum(over)) / count
    found = centred * (var + eps).rsqrt().view(shape)
    if weight is not None:
        found = found * weight.to(x.dtype).view(shape)
    if bias is not None:
        found = found + bias.to(x.dtype).view(shape)
    with torch.no_grad():
        for running, now in ((running_mean, mean), (running_var, var * count / (count - 1))):
            if running is not None:
                running.lerp_(now.to(running.dtype), momentum)
    return found.to(input.dtype).contiguous(
        memory_format=torch.channels_last
        if x.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last)
        else torch.contiguous_format
    )


# --- processes ----------------------------------------------------------------------------------


def device_of(device: torch.device, rank: int, size: int) -> torch.device:
    """The device of a rank: the GPU of its number, where there are several ranks.

    Raises:
        InputError: where this process sees fewer GPUs.
    """
    if size == 1 or device.type != "cuda":
        return device
    if str(device) != device.type:
        message = f"{size} ranks need a GPU each, and the device is {device}"
        raise InputError(message, hint="give cuda, and choose by CUDA_VISIBLE_DEVICES", key=KEY)
    count = torch.cuda.device_count()
    if count < size:
        raise InputError(f"{size} ranks need a GPU each, and torch finds {count}", key=KEY)
    return torch.device("cuda", rank)


@contextmanager
def joined(rank: int, size: int, folder: Path, device: torch.device) -> Iterator[Ranks]:
    """Meet the other ranks, by a file in a folder of their own; part from them at the end."""
    if distributed.is_initialized():
        message = "this process has a torch.distributed group already"
        raise InputError(message, hint="train with ranks in a process without one", key=KEY)
    loopback = socket.if_nameindex()[0][1]
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, loopback))
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    try:
        with _connection_checked():
            distributed.init_process_group(
                backend,
                store=distributed.FileStore(str(folder / "meet"), size),
                rank=rank,
                world_size=size,
                timeout=PATIENCE,
            )
        yield Ranks(rank, size)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Others:
    """The processes of ranks 1 and up, as rank 0 has started them. A context: at its end they are
    gone, and where one of them was the reason its error is raised.

    order: what each is told, plain values; `rank`, `size` and `folder` are added.
    """

    def __init__(self, size: int, order: Mapping[str, Any]) -> None:
        self.working = False
        self._closing = threading.Event()
        self._errors: dict[int, dict[str, str]] = {}
        self._ready = [threading.Event() for _ in range(1, size)]
        self._temporary = tempfile.TemporaryDirectory(prefix="study-ranks-")
        self.folder = Path(self._temporary.name)
        self._processes = [started("study.training.rank") for _ in range(1, size)]
        self._threads = [
            threading.Thread(target=self._listen, args=[rank], daemon=True)
            for rank in range(1, size)
        ]
        for rank, process in enumerate(self._processes, 1):
            told = {**order, "rank": rank, "size": size, "folder": str(self.folder)}
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(told) + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                pass  # its end says why
            self._threads[rank - 1].start()

    def _listen(self, rank: int) -> None:
        process = self._processes[rank - 1]
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                word, _, rest = line.strip().partition(" ")
                if word == READY:
                    self._ready[rank - 1].set()
                elif word == ERROR:
                    self._errors.setdefault(rank, json.loads(rest))
        code = process.wait()
        if code and rank not in self._errors:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            self._errors[rank] = {"kind": LOST, "text": f"was ended {how}", "first": "1"}
        self._ready[rank - 1].set()
        if code and not self._closing.wait(STUCK_SECONDS) and self.working:
            # a GPU's collective waits for ever where Gloo's raises
            print(f"error: rank {rank} {self._errors[rank]['text']}", file=sys.stderr, flush=True)
            os._exit(1)

    def __enter__(self) -> Self:
        return self

    def wait(self, beat: Callable[[], object]) -> None:
        """Wait until all have begun. Raises RankLost if one has ended."""
        for ready in self._ready:
            while not ready.wait(1.0):
                beat()
        if self._errors:
            raise RankLost("a rank has ended before it began")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        if isinstance(error, RankLost):
            self._wait_for_an_error()
        errors = dict(self._errors)
        for process in self._processes:
            process.kill()
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        for thread in self._threads:
            thread.join(1.0)
        self._temporary.cleanup()
        if isinstance(error, RankLost):
            told = self._told(errors)
            if told is not None:
                raise told from error

    def _wait_for_an_error(self) -> None:
        for thread in self._threads:  # the first to end pulls the others along
            thread.join(ERROR_SECONDS / len(self._threads))
            if self._told(self._errors) is not None:
                return

    @staticmethod
    def _told(errors: Mapping[int, Mapping[str, str]]) -> BaseException | None:
        """The error of the rank that ended first; of those that only lost the others, none."""
        for rank, said in sorted(errors.items()):
            if said["kind"] != LOST or "first" in said:
                return as_error(rank, said)
        return None


def error_text(error: BaseException) -> dict[str, str]:
    """What a rank says of its error, as plain text by kind."""
    kinds: list[tuple[type[BaseException], str]] = [
        (torch.OutOfMemoryError, GPU_MEMORY),
        (torch.AcceleratorError, DEVICE),
        (RankLost, LOST),
        (InputError, INPUT),
    ]
    kind = next((name for one, name in kinds if isinstance(error, one)), OTHER)
    if kind == OTHER and is_out_of_memory(error):
        kind = MEMORY
    own = kind in (OTHER, MEMORY)
    return {"kind": kind, "text": deed(error) if own else str(error)}


def as_error(rank: int, said: Mapping[str, str]) -> BaseException:
    """The error that rank 0 raises for another."""
    text = f"rank {rank}: {said['text']}"
    kinds: dict[str, Callable[[str], BaseException]] = {
        GPU_MEMORY: torch.OutOfMemoryError,
        MEMORY: MemoryError,
        DEVICE: torch.AcceleratorError,
        INPUT: InputError,
        LOST: RankLost,
    }
    return kinds.get(said["kind"], RuntimeError)(text)
