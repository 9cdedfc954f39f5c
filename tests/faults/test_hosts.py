"""Two hosts, made of two network namespaces of this machine with a cable between them: runs, deaths, restarts."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Stall

ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "conformance" / "kit"
SCRIPT = "main_qaoe_mlm.py"
OPTIONS = (
    *("--config", "_args/args_msvd-qa.json", "--dataset", "toy", "--task", "toy-qa", "--on_bad_sample", "zero"),
    *(
        "--use_checkpoint",
        "false",
        "--size_batch",
        "1",
        "--n_workers",
        "0",
        "--lr",
        "1e-3",
        "--logging_steps",
        "1",
        "-v",
    ),
    *("--vis_backbone_size", "micro", "--vis_backbone_init", "random", "--size_img", "32", "--save_steps", "2"),
    *("--txt_backbone", str(KIT / "bert_micro"), "--fusion_encoder", str(KIT / "bert_micro")),
    *("--data_dir", str(KIT / "data")),
)
AGAIN = ("--resume", "auto")
FIRST, SECOND, PORT = "10.213.7.1", "10.213.7.2", "29517"


@dataclass
class Host:
    """A network namespace with one end of the cable."""

    name: str
    address: str
    device: str
    folder: Path
    launchers: list[subprocess.Popen] = field(default_factory=list)

    def start(self, *command: object) -> subprocess.Popen:
        """A launcher on this host; what it says goes to a file."""
        said = open(self.folder / f"{self.name}_{len(self.launchers)}.txt", "w")  # noqa: SIM115 (the process writes it)
        environment = {
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "GLOO_SOCKET_IFNAME": self.device,
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *map(str, command)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
            start_new_session=True,
        )
        self.launchers.append(process)
        return process

    @property
    def said(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"{self.name}_*.txt")))

    def processes(self) -> list[int]:
        """All that runs on it."""
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]

    def workers(self) -> list[int]:
        """Those of the script itself, not their launcher."""
        commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in self.processes()}
        words = {pid: path.read_bytes().split(b"\0") for pid, path in commands.items() if path.exists()}
        return [pid for pid, line in words.items() if SCRIPT.encode() in line and b"-m" not in line[:4]]

    def power_off(self) -> None:
        """It is gone in the middle of a word: nobody closes its connections."""
        ip("-n", self.name, "link", "set", self.device, "down")
        self.kill()

    def lose_patience(self) -> None:
        """Connections that nobody answers break at the next attempt, instead of after a quarter of an hour."""
        setting = "/proc/sys/net/ipv4/tcp_retries2"
        ip("netns", "exec", self.name, "sh", "-c", f"echo 1 > {setting}")

    def kill(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):  # it ended with the one before
                os.kill(pid, signal.SIGKILL)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Two of them, with loopbacks of their own."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and the ip command")
    tag = f"{os.getpid() % 100_000}"
    made = [Host(f"lav{tag}{n}", address, f"lv{tag}{n}", tmp_path) for n, address in enumerate((FIRST, SECOND))]
    try:
        for host in made:
            ip("netns", "add", host.name)
        first, second = made
        ip(
            "link",
            "add",
            first.device,
            "netns",
            first.name,
            "type",
            "veth",
            "peer",
            second.device,
            "netns",
            second.name,
        )
        for host in made:
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.device)
            for device in ("lo", host.device):
                ip("-n", host.name, "link", "set", device, "up")
    except (subprocess.CalledProcessError, OSError) as error:
        remove(made)
        pytest.skip(f"this machine makes no network namespaces: {error}")
    yield made
    for host in made:
        host.kill()
        for launcher in host.launchers:
            launcher.wait(10)
    remove(made)


def remove(hosts: list[Host]) -> None:
    for host in hosts:
        subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)


def torchrun(host: int, *options: str, rendezvous: str = "c10d", nnodes: str = "2") -> list[str]:
    """As the README says it, for host number `host`."""
    place = {
        "c10d": (
            *("--rdzv-backend=c10d", "--rdzv-id=7", f"--rdzv-endpoint={FIRST}:{PORT}"),
            # These have no names by which the first could know itself, nor the others it.
            *(f"--rdzv-conf=is_host={int(host == 0)}", f"--local-addr={(FIRST, SECOND)[host]}"),
        ),
        "static": (f"--node_rank={host}", f"--master_addr={FIRST}", f"--master_port={PORT}"),
    }[rendezvous]
    return [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nnodes}", "--nproc_per_node=1", *place, *options]


def wait_until(condition: Callable[[], object], hosts: list[Host]) -> None:
    """Fails where the hosts hang before."""
    stall = Stall(lambda: [pid for host in hosts for pid in host.processes()])
    while not stall.is_over():
        for _ in range(20):
            if condition():
                return
            time.sleep(0.05)
    pytest.fail("\n".join(host.said[-3000:] for host in hosts))


def end(hosts: list[Host], launchers: list[subprocess.Popen]) -> list[int]:
    """Exit codes."""
    wait_until(lambda: all(launcher.poll() is not None for launcher in launchers), hosts)
    return [launcher.returncode for launcher in launchers]


def log_of(output: Path) -> str:
    return "".join(path.read_text() for path in sorted(output.glob("*/stdout.txt")))


def results_of(output: Path) -> Any:
    import json

    (path,) = output.glob("*/results.json")
    return json.loads(path.read_text())


@pytest.fixture
def on_one_host(start, tmp_path: Path) -> Callable[..., Any]:
    """The results of the same two processes on this machine."""

    def run(*options: str) -> Any:
        output = tmp_path / "one"
        start(SCRIPT, *OPTIONS, *options, launcher="torchrun", released=(), small=(), output=output).check_passed()
        return results_of(output)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("way", "deepspeed"), [("static", "false"), ("c10d", "true")])
def test_two_hosts_are_as_one(hosts, on_one_host, tmp_path: Path, way: str, deepspeed: str):
    options = ("--size_epoch", "1", "--deepspeed", deepspeed)
    output = tmp_path / "two"
    command = [SCRIPT, *OPTIONS, *options, "--path_output", output]
    launchers = [host.start(*torchrun(n, rendezvous=way), *command) for n, host in enumerate(hosts)]
    assert end(hosts, launchers) == [0, 0], "\n".join(host.said[-3000:] for host in hosts)
    assert "2 hosts; one that is silent for 45 s ends the run" in log_of(output)
    assert results_of(output) == on_one_host(*options)


@pytest.mark.slow
def test_two_hosts_by_deepspeeds_launcher(hosts, on_one_host, needs, tmp_path: Path):
    """With a hostfile; each host starts its own part, since there is no ssh between these."""
    needs("deepspeed")
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("".join(f"{host.address} slots=1\n" for host in hosts))
    output = tmp_path / "two"
    command = [SCRIPT, *OPTIONS, "--size_epoch", "1", "--deepspeed", "true", "--path_output", output]
    words = (
        "-m",
        "deepspeed.launcher.runner",
        f"--hostfile={hostfile}",
        "--no_ssh",
        f"--master_addr={FIRST}",
    )
    launchers = [
        host.start(sys.executable, *words, f"--master_port={PORT}", f"--node_rank={n}", *command)
        for n, host in enumerate(hosts)
    ]
    assert end(hosts, launchers) == [0, 0], "\n".join(host.said[-3000:] for host in hosts)
    assert results_of(output) == on_one_host("--size_epoch", "1", "--deepspeed", "true")


@pytest.mark.slow
@pytest.mark.parametrize("rendezvous", ["static", "c10d"])
@pytest.mark.parametrize("dies", [0, 1])
def test_a_host_that_dies_ends_the_others(hosts, tmp_path: Path, dies: int, rendezvous: str):
    output = tmp_path / "two"
    command = [SCRIPT, *OPTIONS, "--size_epoch", "1000", "--path_output", output]
    launchers = [host.start(*torchrun(n, rendezvous=rendezvous), *command) for n, host in enumerate(hosts)]
    wait_until(lambda: "epoch 2/1000" in log_of(output), hosts)
    hosts[dies].power_off()
    left = hosts[1 - dies]
    told = f"stopped: nothing was heard from the host of process {dies} for"
    wait_until(lambda: told in left.said, hosts)
    assert "Traceback" not in left.said.split(told)[0]
    wait_until(lambda: not left.workers(), hosts)
    left.lose_patience()  # the launcher too waits for the first host, for as long as TCP does
    wait_until(lambda: launchers[1 - dies].poll() is not None, hosts)
    assert launchers[1 - dies].returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["false", "true"])
def test_restarted_workers_go_on_from_the_last_state(hosts, tmp_path: Path, deepspeed: str):
    """`--max_restarts`: one process is killed, all start again, and the results are those of an undisturbed run."""
    whole, output = tmp_path / "whole", tmp_path / "two"
    for place in (whole, output):
        command = [
            SCRIPT,
            *OPTIONS,
            "--deepspeed",
            deepspeed,
            "--size_epoch",
            "3",
            "--resume",
            "auto",
            "--path_output",
            place,
        ]
        launchers = [host.start(*torchrun(n, "--max_restarts=1"), *command) for n, host in enumerate(hosts)]
        if place == output:
            wait_until(lambda: "epoch 2/3" in log_of(output), hosts)
            os.kill(hosts[1].workers()[0], signal.SIGKILL)
        assert end(hosts, launchers) == [0, 0], "\n".join(host.said[-5000:] for host in hosts)
    assert "resumed from" in log_of(output)
    assert results_of(output) == results_of(whole)


@pytest.mark.slow
def test_one_host_goes_on_without_the_other(hosts, tmp_path: Path):
    """`--nnodes=1:2`: the host that is left starts again alone, with DDP's weights and optimizer."""
    output = tmp_path / "two"
    command = [
        SCRIPT,
        *OPTIONS,
        "--deepspeed",
        "false",
        "--size_epoch",
        "6",
        "--resume",
        "auto",
        "--path_output",
        output,
    ]
    launchers = [host.start(*torchrun(n, "--max_restarts=3", nnodes="1:2"), *command) for n, host in enumerate(hosts)]
    wait_until(lambda: "epoch 2/6" in log_of(output), hosts)
    hosts[1].power_off()
    wait_until(lambda: launchers[0].poll() is not None, hosts)
    assert launchers[0].returncode == 0, hosts[0].said[-5000:]
    assert "of 2 processes, these are 1" in log_of(output)
    assert len(results_of(output)["epochs"]) == 6
