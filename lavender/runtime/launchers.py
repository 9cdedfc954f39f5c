"""Detection of the launcher: rank, world size and rendezvous address, from the environment of ONE launcher."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from lavender.runtime.errors import ConfigError
from lavender.runtime.quoting import shown

LOOPBACK = "127.0.0.1"
PORT = 5566
_PORTS_OF_JOBS = range(12000, 32000)  # below Linux's ephemeral ports
_NODE_LISTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
_HYDRA, _CRAY = ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"), ("PMI_LOCAL_RANK", "PMI_LOCAL_SIZE")
_OTHERS = (  # rank and size of unsupported launchers, whose processes would all train alone
    ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("PALS_RANKID", "PALS_SIZE"),
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
    ("PMIX_RANK", ""),
)
_NUMBER = re.compile(r"[0-9]{1,18}")  # number of a job or step
_MAX_STEP = 0xFFFFFFF0  # larger ids are reserved: batch script, external and interactive step


@dataclass(frozen=True)
class Launch:
    """A process of a run, as described by its launcher.

    Attributes:
        binds_gpus: the launcher may show each process only its own GPUs, numbered from 0.
    """

    rank: int
    local_rank: int
    world_size: int
    address: str = LOOPBACK
    port: int = PORT
    binds_gpus: bool = False


def find_launch(environment: Mapping[str, str]) -> Launch | None:
    """Reads the launcher's description of this process; None without a launcher.

    The first complete one is used of: torchrun (also torch.distributed.launch and deepspeed), Open MPI, MPICH or Intel
    MPI, Slurm.

    Raises:
        ConfigError: variables are missing, not numbers, or contradictory.
    """
    for rank, size, local_rank, local_size in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK", ""),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("PMI_RANK", "PMI_SIZE", *(_CRAY if _CRAY[0] in environment else _HYDRA)),
    ):
        if rank in environment and size in environment and not (rank == "PMI_RANK" and _is_sruns_pmi(environment)):
            here = _whole(environment, local_size) if local_size in environment else None
            several_hosts = here is not None and here < _whole(environment, size)
            return _launch(environment, rank, size, local_rank, several_hosts=several_hosts)
    if launch := _slurm(environment):
        if environment.get("WORLD_SIZE", str(launch.world_size)) != str(launch.world_size):
            raise ConfigError(f"WORLD_SIZE={environment['WORLD_SIZE']}, but Slurm starts {launch.world_size} tasks")
        return launch
    for rank, size in (
        ("RANK", "WORLD_SIZE"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
    ):
        for name, other in ((rank, size), (size, rank)):
            if name in environment:
                raise ConfigError(
                    f"{name}={environment[name]} is set, but {other} is not: set both, "
                    "or neither for a run of one process"
                )
    if "SLURM_PROCID" not in environment:
        _refuse_others(environment)
    return None


def _refuse_others(environment: Mapping[str, str]) -> None:
    """Raises ConfigError if an unsupported launcher, or incomplete variables, indicate several processes."""
    for rank, size in _OTHERS:
        number = _whole(environment, rank) if environment.get(rank) else 0
        if number or (environment.get(size) and _whole(environment, size) > 1):
            name = rank if number else size
            raise ConfigError(
                f"{name}={environment[name]} is set, but RANK and WORLD_SIZE are not, so this process would train "
                "alone: set RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR for each process, or start them with torchrun"
                f" or srun; for a run of one process unset {name}"
            )


def processes_here(environment: Mapping[str, str]) -> int:
    """Number of processes of this run on this host, as the launcher reports it; 1 if it reports none."""
    for name in ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", _HYDRA[1], _CRAY[1]):
        if name in environment:
            return max(_whole(environment, name), 1)
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "") if "SLURM_PROCID" in environment else ""
    return max((int(count) for count in re.findall(r"(?:^|,)([0-9]{1,6})", tasks)), default=1)  # such as 4(x2),3


def _is_sruns_pmi(environment: Mapping[str, str]) -> bool:
    """Whether PMI's variables come from `srun --mpi=pmi2`; Slurm's own say more: hosts and local ranks.

    MPICH and Intel MPI under Slurm have Slurm's variables, too, from the batch script or from their host launcher.
    """
    pairs = (("PMI_RANK", "SLURM_PROCID"), ("PMI_SIZE", "SLURM_STEP_NUM_TASKS"))
    own = all(environment.get(pmi) == environment.get(slurm) for pmi, slurm in pairs)
    return own and _HYDRA[0] not in environment and _CRAY[0] not in environment


def _slurm(environment: Mapping[str, str]) -> Launch | None:
    """Launch of a task of `srun`; None for a run of one task or a shell of `salloc`."""
    if "SLURM_PROCID" not in environment:
        return None
    size = next((name for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS") if name in environment), "")
    rank = _whole(environment, "SLURM_PROCID")
    if not size:
        if rank:
            raise ConfigError(f"SLURM_PROCID={rank}, but SLURM_NTASKS is not set: start the script with srun")
        return None
    if _whole(environment, size) == 1 and rank == 0:
        return None
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID", ""))
    special = (_NUMBER.fullmatch(step) and int(step) >= _MAX_STEP) or step in ("batch", "extern", "interactive")
    if rank == 0 and (special or (not step and environment.get("ENVIRONMENT") == "BATCH")):
        raise ConfigError(
            f"{size}={environment[size]}, but this is the batch script, not one of its tasks: "
            "write `srun python …` in it, or, for one process, `SLURM_NTASKS=1 python …`"
        )
    nodes = next((environment[name] for name in _NODE_LISTS if environment.get(name)), "")
    count = next((name for name in ("SLURM_STEP_NUM_NODES", "SLURM_NNODES") if name in environment), "")
    several = _whole(environment, count) > 1 if count else has_several_hosts(nodes)
    return _launch(
        environment, "SLURM_PROCID", size, "SLURM_LOCALID", several, first_host(nodes), _job_port(environment)
    )


def _launch(
    environment: Mapping[str, str],
    rank: str,
    size: str,
    local_rank: str,
    several_hosts: bool,
    first: str = "",
    port: int = PORT,
) -> Launch:
    number, count = _whole(environment, rank), _whole(environment, size)
    if number >= count:
        raise ConfigError(f"{rank}={number}, but {size}={count}: ranks go from 0 to {size} - 1")
    address = environment.get("MASTER_ADDR") or (first if several_hosts else LOOPBACK)
    if not address:
        raise ConfigError(f"{size}={count} processes on several hosts: set MASTER_ADDR to the host of process 0")
    if environment.get("MASTER_PORT"):
        port = _whole(environment, "MASTER_PORT")
        if not 0 < port < 2**16:
            raise ConfigError(f"MASTER_PORT={port}: ports go from 1 to 65535")
    by_torch = rank == "RANK"
    if local_rank in environment:
        local = _whole(environment, local_rank)
        if local >= count:
            raise ConfigError(f"{local_rank}={local}, but {size}={count}: ranks on a host are below that")
    elif by_torch:
        local = 0
    elif several_hosts:
        raise ConfigError(f"{rank}={number} is set, but {local_rank}, the rank on this host, is not")
    else:
        local = number
    return Launch(number, local, count, address, port, binds_gpus=not by_torch)


def _whole(environment: Mapping[str, str], name: str) -> int:
    value = environment[name]
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()):
        raise ConfigError(f"{name}={shown(value)} is not a whole number from 0 on")
    return int(value)


def _job_port(environment: Mapping[str, str]) -> int:
    """Port of this job and step, equal on all of its tasks."""
    job = next((environment[name] for name in ("SLURM_JOB_ID", "SLURM_JOBID") if name in environment), "")
    if not _NUMBER.fullmatch(job):
        return PORT
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID", ""))
    return _PORTS_OF_JOBS[(int(job) * 16 + (int(step) if _NUMBER.fullmatch(step) else 0)) % len(_PORTS_OF_JOBS)]


def first_host(nodes: str) -> str:
    """First host of a Slurm node list: node03 for `node[03-05,9],x`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes.strip())
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0]) if first else ""


def has_several_hosts(nodes: str) -> bool:
    """Whether a Slurm node list names more than one host."""
    return bool(re.search(r",|\[[^\]]*-", nodes))


def leave(code: int = 0) -> NoReturn:
    """Exits at once, after flushing the output.

    For launched processes: at interpreter shutdown, a gloo thread that still holds a tensor may abort the process
    (PyTorch issue 190489), so that a successful run would seem to have failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
