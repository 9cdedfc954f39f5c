import multiprocessing
import os
import socket
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist

from lavender.runtime import distributed
from lavender.runtime.errors import ConfigError

CPU = torch.device("cpu")


def set_variables(monkeypatch: pytest.MonkeyPatch, **variables: int) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_without_a_launcher_there_is_one_process():
    assert (distributed.rank(), distributed.local_rank(), distributed.world_size()) == (0, 0, 1)
    assert distributed.is_main()
    assert not distributed.is_launched()


def test_ranks_of_torchrun(monkeypatch: pytest.MonkeyPatch):
    set_variables(monkeypatch, RANK=5, LOCAL_RANK=1, WORLD_SIZE=8)
    assert (distributed.rank(), distributed.local_rank(), distributed.world_size()) == (5, 1, 8)
    assert not distributed.is_main()
    assert distributed.is_launched()


def test_ranks_of_mpirun(monkeypatch: pytest.MonkeyPatch):
    set_variables(monkeypatch, OMPI_COMM_WORLD_RANK=3, OMPI_COMM_WORLD_LOCAL_RANK=2, OMPI_COMM_WORLD_SIZE=4)
    assert (distributed.rank(), distributed.local_rank(), distributed.world_size()) == (3, 2, 4)
    assert not distributed.is_main()
    assert distributed.is_launched()
    set_variables(monkeypatch, RANK=0, LOCAL_RANK=0, WORLD_SIZE=1)  # torchrun inside an mpirun allocation
    assert (distributed.rank(), distributed.local_rank(), distributed.world_size()) == (0, 0, 1)


def test_a_launcher_may_start_a_single_process(monkeypatch: pytest.MonkeyPatch):
    set_variables(monkeypatch, RANK=0, WORLD_SIZE=1)
    assert distributed.is_launched()
    assert distributed.is_main()


def test_without_a_launcher_nothing_is_started_and_everything_is_its_own():
    distributed.start(CPU)
    assert not dist.is_initialized()
    values, record = torch.tensor([1.0, 2.0]), {"index": 3}
    assert distributed.gather_objects(record) == [record]
    assert distributed.broadcast_object(record) is record
    assert distributed.mean(values) is values
    distributed.barrier()
    distributed.stop()


def test_uses_cuda_only_once_cuda_is_in_use(monkeypatch: pytest.MonkeyPatch):
    for available, initialized in [(False, False), (True, False), (True, True)]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda value=available: value)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda value=initialized: value)
        assert distributed.uses_cuda() is (available and initialized)


def test_mpirun_alone_is_enough_for_torch(monkeypatch: pytest.MonkeyPatch):
    set_variables(monkeypatch, OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_LOCAL_RANK=0, OMPI_COMM_WORLD_SIZE=1)
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    try:
        distributed.start(CPU, minutes=1)
        assert dist.is_initialized()
        assert (os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["MASTER_ADDR"]) == ("0", "1", "127.0.0.1")
        distributed.start(CPU)  # a second call is no fault
        assert distributed.gather_objects("mine") == ["mine"]
    finally:
        distributed.stop()
    assert not dist.is_initialized()


def _process(rank: int, port: int, job: Callable, results: multiprocessing.Queue) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.start(CPU, minutes=0.5)
    results.put((rank, job()))
    distributed.barrier()
    distributed.stop()


def _exchange() -> dict:
    rank = distributed.rank()
    values = torch.tensor([1.0 + rank, float("nan") if rank else 0.0])
    mean = distributed.mean(values)
    return {
        "gathered": distributed.gather_objects({"rank": rank, "records": ["x"] * rank}),
        "broadcast": distributed.broadcast_object(f"from {rank}"),
        "mean": mean.tolist(),
        "untouched": values[0].item() == 1.0 + rank,
    }


def test_two_processes_exchange():
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue = context.Queue()
    port = free_port()
    processes = [context.Process(target=_process, args=(rank, port, _exchange, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=300) for _ in processes)
    for process in processes:
        process.join(timeout=300)
        assert process.exitcode == 0
    for rank in range(2):
        assert found[rank]["gathered"] == [{"rank": 0, "records": []}, {"rank": 1, "records": ["x"]}]
        assert found[rank]["broadcast"] == "from 0"
        assert found[rank]["mean"][0] == 1.5
        assert found[rank]["mean"][1] != found[rank]["mean"][1], "NaN anywhere is NaN everywhere"
        assert found[rank]["untouched"]


def test_a_torchrun_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    port = free_port()
    set_variables(monkeypatch, RANK=0, WORLD_SIZE=2, MASTER_PORT=port)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(ConfigError, match=f"torchrun at MASTER_ADDR=127.0.0.1 MASTER_PORT={port}"):
        distributed.start(CPU, patience=0.5)


def _ranks() -> tuple[int, str]:
    return distributed.local_rank(), os.environ["LOCAL_RANK"]


def _process_of_mpirun(rank: int, port: int, results: multiprocessing.Queue) -> None:
    distributed._gpu_number = lambda device, found: 0  # each sees one GPU alone
    os.environ.update(OMPI_COMM_WORLD_RANK=str(rank), OMPI_COMM_WORLD_LOCAL_RANK=str(rank), OMPI_COMM_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.start(CPU, minutes=0.5)
    results.put((rank, _ranks()))
    distributed.barrier()
    distributed.stop()


def test_processes_that_see_one_gpu_each_keep_their_ranks():
    """LOCAL_RANK is then 0 for all, for DeepSpeed; taken for their rank, each process would be a host of its own."""
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue = context.Queue()
    port = free_port()
    processes = [context.Process(target=_process_of_mpirun, args=(rank, port, results)) for rank in range(2)]
    for process in processes:
        process.start()
    assert dict(results.get(timeout=300) for _ in processes) == {0: (0, "0"), 1: (1, "0")}
    for process in processes:
        process.join(timeout=300)
        assert process.exitcode == 0
