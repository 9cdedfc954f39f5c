import pytest

from lavender.runtime.errors import ConfigError
from lavender.runtime.launchers import (
    LOOPBACK,
    PORT,
    Launch,
    find_launch,
    first_host,
    has_several_hosts,
    processes_here,
)


def slurm(rank: int, size: int, **more: str) -> dict[str, str]:
    return {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(size), **{f"SLURM_{name}": it for name, it in more.items()}}


OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}
STEP = {"STEP_NUM_TASKS": "4", "STEP_ID": "0", "JOB_ID": "20000"}
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", **slurm(0, 2)}, Launch(5, 1, 8)),
        ({**OPEN_MPI, **slurm(0, 2)}, Launch(3, 1, 4, binds_gpus=True)),
        ({**MPICH, "MPI_LOCALRANKID": "0"}, Launch(1, 0, 2, binds_gpus=True)),
        (MPICH, Launch(1, 1, 2, binds_gpus=True)),
        ({**MPICH, "PMI_LOCAL_RANK": "0", "PMI_LOCAL_SIZE": "2"}, Launch(1, 0, 2, binds_gpus=True)),
        (  # srun --mpi=pmi2, the second task of four on the second of two hosts
            {"PMI_RANK": "2", "PMI_SIZE": "4", **slurm(2, 4, **STEP, LOCALID="0", NODELIST="n[1-2]")},
            Launch(2, 0, 4, "n1", 12000, binds_gpus=True),
        ),
        (  # mpiexec in a batch script of as many tasks, whose variables all its ranks have
            {**MPICH, "PMI_RANK": "0", "MPI_LOCALRANKID": "0", "ENVIRONMENT": "BATCH", **slurm(0, 2)},
            Launch(0, 0, 2, binds_gpus=True),
        ),
        (  # the same, where it has started its ranks by one task of srun
            {**MPICH, "PMI_RANK": "0", "MPI_LOCALRANKID": "0", **slurm(0, 2, STEP_NUM_TASKS="1", STEP_ID="0")},
            Launch(0, 0, 2, binds_gpus=True),
        ),
        (slurm(1, 2), Launch(1, 1, 2, binds_gpus=True)),
        (slurm(0, 2), Launch(0, 0, 2, binds_gpus=True)),
        (slurm(1, 8, STEP_NUM_TASKS="2", STEP_ID="0"), Launch(1, 1, 2, binds_gpus=True)),
        ({**slurm(1, 2), "WORLD_SIZE": "2", "MASTER_PORT": "7"}, Launch(1, 1, 2, port=7, binds_gpus=True)),
    ],
)
def test_one_launcher_is_read(environment: dict, launch: Launch):
    assert find_launch(environment) == launch


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"},  # the shell of salloc
        slurm(0, 1),
        slurm(0, 4, STEP_NUM_TASKS="1", STEP_ID="4294967290"),  # its interactive step
        {"SLURM_PROCID": "0", "SLURM_JOB_ID": "7"},  # a batch script without --ntasks
        {"LOCAL_RANK": "0"},
        {"PMIX_RANK": "0"},
        {"FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "1"},
    ],
)
def test_no_launcher(environment: dict):
    assert find_launch(environment) is None


@pytest.mark.parametrize("job", ["9" * 5000, "²"])
def test_a_job_that_is_no_number_has_the_default_port(job: str):
    assert find_launch({**slurm(0, 2), "SLURM_JOB_ID": job}).port == PORT


def test_meeting_point_of_slurm():
    tasks = [
        find_launch(slurm(rank, 4, LOCALID=str(rank % 2), NODELIST="r[1-2]n[03-04],x", JOB_ID="1234567", STEP_ID="2"))
        for rank in range(4)
    ]
    assert {(task.address, task.port) for task in tasks if task} == {("r1n03", 12000 + (1234567 * 16 + 2) % 20000)}
    assert [task.local_rank for task in tasks if task] == [0, 1, 0, 1]
    given = {"MASTER_ADDR": "head", "MASTER_PORT": "29500"}
    mine = find_launch(slurm(1, 2, NODELIST="a,b", LOCALID="0", JOB_ID="3") | given)
    assert mine
    assert (mine.address, mine.port) == ("head", 29500)
    alone = find_launch(slurm(1, 2, NODELIST="node[03]"))
    assert alone
    assert alone.address == LOOPBACK


@pytest.mark.parametrize(
    ("nodes", "first", "several"),
    [
        ("node[03-05,9],x", "node03", True),
        ("a-b[1,3]c", "a-b1c", True),
        ("gpu-1", "gpu-1", False),
        ("r[1-2]n[03-04]", "r1n03", True),
        ("node[07]", "node07", False),
        ("a,b", "a", True),
        ("", "", False),
    ],
)
def test_node_lists(nodes: str, first: str, several: bool):
    assert (first_host(nodes), has_several_hosts(nodes)) == (first, several)


@pytest.mark.parametrize(
    ("environment", "facts"),
    [
        ({"RANK": "1"}, ("RANK=1", "WORLD_SIZE")),
        ({"WORLD_SIZE": "2"}, ("WORLD_SIZE=2", "RANK")),
        ({"PMI_RANK": "0"}, ("PMI_RANK=0", "PMI_SIZE")),
        ({"RANK": "2", "WORLD_SIZE": "2"}, ("RANK=2", "WORLD_SIZE=2")),
        ({"RANK": "one", "WORLD_SIZE": "2"}, ("RANK='one'",)),
        (slurm(-1, 2), ("SLURM_PROCID='-1'",)),
        (slurm(3, 2), ("SLURM_PROCID=3", "SLURM_NTASKS=2")),
        ({"SLURM_PROCID": "1"}, ("SLURM_PROCID=1", "SLURM_NTASKS")),
        ({**slurm(0, 2), "ENVIRONMENT": "BATCH"}, ("SLURM_NTASKS=2", "srun")),
        (slurm(0, 2, STEP_ID="4294967291"), ("SLURM_NTASKS=2", "srun")),
        (slurm(1, 2, NODELIST="a,b"), ("SLURM_PROCID=1", "SLURM_LOCALID")),
        ({**slurm(1, 2), "WORLD_SIZE": "3"}, ("WORLD_SIZE=3", "2 tasks")),
        ({**slurm(1, 2), "MASTER_PORT": "70000"}, ("MASTER_PORT=70000",)),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, ("MASTER_ADDR",)),
        ({"LOCAL_RANK": "1"}, ("LOCAL_RANK=1", "RANK and WORLD_SIZE")),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, ("LOCAL_WORLD_SIZE=2", "RANK and WORLD_SIZE")),
        ({"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "2"}, ("MV2_COMM_WORLD_SIZE=2", "WORLD_SIZE")),
        ({"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2"}, ("FLUX_TASK_RANK=1", "WORLD_SIZE")),
        ({"PMIX_RANK": "3"}, ("PMIX_RANK=3", "WORLD_SIZE")),
    ],
)
def test_variables_that_do_not_fit(environment: dict, facts: tuple):
    with pytest.raises(ConfigError) as told:
        find_launch(environment)
    assert all(fact in str(told.value) for fact in facts), told.value


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 1),
        ({"LOCAL_WORLD_SIZE": "4"}, 4),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "3"}, 3),
        ({"MPI_LOCALNRANKS": "2"}, 2),
        ({"SLURM_PROCID": "0", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, 4),
        ({"SLURM_PROCID": "0", "SLURM_STEP_TASKS_PER_NODE": "1,8"}, 8),
        ({"SLURM_STEP_TASKS_PER_NODE": "8"}, 1),
    ],
)
def test_processes_that_share_a_host(environment: dict, count: int):
    assert processes_here(environment) == count
