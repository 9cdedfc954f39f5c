"""Processes of a run: ranks from any launcher's environment, collective operations, main-process checks."""

import logging
import os
import socket
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from lavender.runtime import launchers
from lavender.runtime.errors import ConfigError
from lavender.runtime.launchers import Launch, find_launch

PATIENCE = 180.0  # seconds within which all processes of a run must start
LOGGER = logging.getLogger("lavender")  # lavender.runtime.logging imports this module

_object_group: Any = None
_met: Launch | None = None  # the launch before `start` set torch's variables


def launch() -> Launch | None:
    """The launch of this process, as from `find_launch`."""
    return _met or find_launch(os.environ)


def rank() -> int:
    """Rank of this process, from 0."""
    found = launch()
    return found.rank if found else 0


def local_rank() -> int:
    """Rank of this process on its host, from 0; it selects the GPU."""
    found = launch()
    return found.local_rank if found else 0


def world_size() -> int:
    """Number of processes."""
    found = launch()
    return found.world_size if found else 1


def processes_here() -> int:
    """Number of processes of the run on this host, as far as the launcher reports it."""
    return launchers.processes_here(os.environ) if is_launched() else 1


def is_main() -> bool:
    """Whether this is the main process, which writes logs, progress bars and files."""
    return rank() == 0


def is_launched() -> bool:
    """Whether a launcher started this process, even as the only one."""
    return launch() is not None


def uses_cuda() -> bool:
    """Whether the processes communicate over GPUs (then batches should be pinned)."""
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def start(device: torch.device, minutes: float = 30, patience: float = PATIENCE) -> None:
    """Joins the process group of the run: nccl on CUDA, gloo on a CPU; without a launcher does nothing.

    Args:
        minutes: timeout of collective operations.
        patience: timeout in seconds for the start of all processes.

    Raises:
        ConfigError: the processes cannot connect; the message says which one is missing, and where.
    """
    global _object_group, _met
    found = launch()
    if found is None or dist.is_initialized():
        return
    options: dict[str, Any] = {"timeout": timedelta(minutes=minutes)}
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun has set up the store
        _find_agent(found, patience)
    else:
        store = _meet(found, device, patience)
        store.set_timeout(options["timeout"])
        options |= {"store": store, "rank": found.rank, "world_size": found.world_size}
    _met = found
    # torch and DeepSpeed read only these
    os.environ |= {
        "RANK": str(found.rank),
        "LOCAL_RANK": str(_gpu_number(device, found)),
        "WORLD_SIZE": str(found.world_size),
        "MASTER_ADDR": found.address,
        "MASTER_PORT": str(found.port),
    }
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device, **options)
        _object_group = dist.new_group(backend="gloo", timeout=options["timeout"])
    else:
        dist.init_process_group("gloo", **options)


def _find_agent(found: Launch, patience: float) -> None:
    """Waits for torchrun's store with a timeout; torch itself would wait forever."""
    try:
        _wait_for_address(found, time.monotonic() + patience)
    except OSError as error:
        raise ConfigError(
            f"process {found.rank} of {found.world_size} found no torchrun at MASTER_ADDR={found.address} "
            f"MASTER_PORT={found.port} within {patience:g} s ({error}): it was stopped, or that host is not reached"
        ) from error


def _meet(found: Launch, device: torch.device, patience: float) -> dist.Store:
    """Waits until every process of the run has connected and has its own GPU."""
    where, end = f"MASTER_ADDR={found.address} MASTER_PORT={found.port}", time.monotonic() + patience
    me = f"process {found.rank} of {found.world_size}"
    try:
        _wait_for_address(found, end, listens=found.rank == 0)
        store = dist.TCPStore(
            found.address,
            found.port,
            is_master=found.rank == 0,
            timeout=timedelta(seconds=patience),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except (OSError, dist.DistError) as error:
        if "EADDRINUSE" in str(error):
            raise ConfigError(
                f"{me}: {where} is taken by another program or run; "
                "set MASTER_PORT to a free port, or start each rank once"
            ) from error
        raise ConfigError(
            f"{me} found no process 0 at {where} within {patience:g} s ({str(error).splitlines()[0]}): "
            "start all of them, e.g. with srun, and see that MASTER_ADDR is the host of process 0"
        ) from error
    if store.add(f"came {found.rank}", 1) > 1:
        raise ConfigError(f"two processes say that they are {me}, at {where}: start each rank once")
    gpu = f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else ""
    store.set(f"gpu {found.rank}", gpu)
    missing = set(range(found.world_size))
    told = time.monotonic() + 10
    while missing := {other for other in missing if not store.check([f"gpu {other}"])}:
        if time.monotonic() > end:
            raise ConfigError(
                f"{me} waited {patience:g} s at {where}, but process {_some(missing)} did not come: "
                "start all of them, e.g. with srun; for a run of one process unset the launcher's variables"
            )
        if time.monotonic() > told:
            LOGGER.warning("%s waits for process %s at %s", me, _some(missing), where)
            told = end
        time.sleep(0.1)
    owners = [store.get(f"gpu {other}").decode() for other in range(found.world_size)]
    if gpu and owners.count(gpu) > 1:
        sharing = {other for other, its in enumerate(owners) if its == gpu}
        raise ConfigError(
            f"processes {_some(sharing)} share one GPU ({gpu}): give each its own, e.g. srun --gpus-per-task=1"
        )
    store.add("met", 1)
    if found.rank == 0:  # the store ends with this process, so the others leave first
        while store.add("met", 0) < found.world_size and time.monotonic() < end + 5:
            time.sleep(0.02)
    return store


def _some(ranks: set[int]) -> str:
    shown = ", ".join(map(str, sorted(ranks)[:8]))
    return shown + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")


def _wait_for_address(found: Launch, end: float, listens: bool = False) -> None:
    """Waits until a process listens at the address (torch would print many warnings).

    Args:
        listens: this process is the one that will listen; then the address is only checked.
    """
    while True:
        try:
            if listens:
                socket.getaddrinfo(found.address, found.port)
            else:
                socket.create_connection((found.address, found.port), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end or listens:
                raise
            time.sleep(0.2)


def _gpu_number(device: torch.device, found: Launch) -> int:
    """LOCAL_RANK for libraries that use the GPU of this number: the number of the device, if there is one."""
    return device.index if device.type == "cuda" and device.index is not None else found.local_rank


def stop() -> None:
    """Leaves the process group at the end of a successful run."""
    global _object_group, _met
    if dist.is_initialized():
        dist.destroy_process_group()
    _object_group = _met = None


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error of torch means that another process has ended during a collective operation."""
    return dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error).lower())


def barrier() -> None:
    """Waits for all processes."""
    if dist.is_initialized():
        dist.barrier(group=_object_group)


def gather_objects(value: Any) -> list[Any]:
    """All-gathers `value` by rank (pickled, for small values)."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value, group=_object_group)
    return gathered


def gather_on_main(value: Any) -> list[Any]:
    """Gathers `value` by rank on the main process; an empty list on the others (pickled)."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(value, gathered, group=_object_group)
    return gathered or []


def broadcast_object(value: Any) -> Any:
    """Broadcasts the main process's `value`."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_object_group)
    return box[0]


def mean(values: torch.Tensor) -> torch.Tensor:
    """Elementwise mean of a tensor over the processes; NaN anywhere is NaN everywhere."""
    if dist.is_initialized() and world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= world_size()
    return values
