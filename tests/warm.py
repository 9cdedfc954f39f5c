"""Starts of scripts from a process that has the heavy imports behind it: they take most of a short run's time.

    python tests/warm.py SOCKET PID [MODULE …]

imports the modules and forks a process for each request of `warm_client.py`. It ends with the process PID.
"""

import atexit
import fcntl
import functools
import gc
import hashlib
import importlib
import multiprocessing.process
import os
import pickle
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TRAINING = (
    *("lavender.engine.run", "torch.distributed.run", "torch.utils.tensorboard"),
    *("lavender.models.backbones.video_swin_weights", "PIL.JpegImagePlugin", "numpy.ma"),
    "torch._dynamo",  # by DistributedDataParallel
    *(f"lavender.{path.parent.name}.{path.stem}" for path in sorted(ROOT.glob("lavender/[mt][oa]*s/[a-z]*.py"))),
)
DEEPSPEED = (
    *("deepspeed", "deepspeed.ops.op_builder.all_ops", "deepspeed.runtime.engine", "setuptools"),
    "torch._inductor.compile_fx",
)


@functools.cache
def warm(*modules: str) -> "WarmStart":
    """A process that has imported what a training script does, and these modules: one for all workers of a test run."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    session = os.getppid() if run else os.getpid()
    name = hashlib.sha256(repr((run or session, modules)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"warm-{session}-{name}")
    return WarmStart(folder, session, (*TRAINING, *modules), {**os.environ, **NO_GPU})


class WarmStart:
    """The process that forks others. It lasts as long as the process `session`, and is started by who needs it first.

    `command` stands for `python` in a command line; `settings` are variables by which launchers use it for their
    processes.
    """

    def __init__(self, folder: Path, session: int, modules: Sequence[str], environment: Mapping[str, str]):
        address, executable = folder / "socket", folder / "python"
        self.command, self.settings = [str(executable)], {"PYTHON_EXEC": str(executable)}
        folder.mkdir(exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
            if address.exists():
                return
            python = [sys.executable, "-I", "-S", str(ROOT / "tests" / "warm_client.py")]
            executable.write_text(f'#!/bin/sh\nWARM_SOCKET={address} exec {shlex.join(python)} "$@"\n')
            executable.chmod(0o755)
            self._server = subprocess.Popen(
                [sys.executable, __file__, str(address), str(session), *modules],
                **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "env": environment, "cwd": ROOT},
            )
            while not address.exists() and self._server.poll() is None:
                time.sleep(0.01)

    def run(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """`python` with these words, to its end; `options` are those of `subprocess.run`."""
        environment = {**(options.pop("env", None) or os.environ), **self.settings}
        return subprocess.run(
            [*self.command, *map(str, words)],
            env=environment,
            **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 300, **options},
        )


def serve(listener: socket.socket, session: int) -> list[str]:
    """Answers requests until the process `session` ends. Returns only in a forked process, with its command line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forked minders
    ended = os.pidfd_open(session)
    while True:
        ready, _, _ = select.select([listener, ended], [], [])
        if ended in ready:
            shutil.rmtree(Path(sys.argv[1]).parent)
            os._exit(0)
        connection, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            os.close(ended)
            if words := mind(connection):
                return words
        connection.close()


def mind(connection: socket.socket) -> list[str]:
    """Forks the process of a request, which returns its command line; waits for it, or ends it with its client."""
    content, descriptors, _, _ = socket.recv_fds(connection, 2**20, 3)
    words, folder, environment = pickle.loads(content)
    process = os.fork()
    if not process:
        connection.close()
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        return words
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(f"{process}\n".encode())
    ended = os.pidfd_open(process)
    ready, _, _ = select.select([connection, ended], [], [])
    if ended not in ready:
        os.killpg(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(words: list[str]) -> None:
    """Runs a command line of Python: a script, `-m` and a module, or `-c` and lines."""
    if words[0] == "-u":
        words = words[1:]
    multiprocessing.process.ORIGINAL_DIR = os.getcwd()  # where processes of this one look for the script
    sys.stdin = open(0)  # noqa: SIM115 (for as long as the process lives)
    if words[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path[0], sys.argv = "", ["-c", *words[2:]]
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.path[0], sys.argv = str(Path(words[0]).parent.absolute()), words
        runpy.run_path(words[0], run_name="__main__")


def become_and_end(words: list[str]) -> None:
    """Ends the process as Python does, too, but without taking apart all that was imported, for seconds."""
    code: Any = None
    try:
        become(words)
    except SystemExit as leaving:
        code = leaving.code
        if not isinstance(code, int | None):
            raise
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    with socket.socket(socket.AF_UNIX) as listener:
        for name in sys.argv[3:]:
            importlib.import_module(name)
        gc.freeze()
        listener.bind(f"{sys.argv[1]}.new")
        listener.listen()
        os.rename(f"{sys.argv[1]}.new", sys.argv[1])  # who sees it can be answered
        words = serve(listener, int(sys.argv[2]))
    sys.path.pop(0)
    become_and_end(words)
