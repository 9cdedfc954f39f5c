"""Starts of scripts from a process that has the heavy imports behind it: they take most of a short run's time.

    python tests/warm.py SOCKET [MODULE …]

imports the modules and forks a process for each request of `warm_client.py`. It ends with its standard input.
"""

import atexit
import functools
import gc
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


_started: list["WarmStart"] = []


@functools.cache
def warm(*modules: str) -> "WarmStart":
    """This test session's process that has imported what a training script does, and these modules."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    _started.append(WarmStart(folder, (*TRAINING, *modules), {**os.environ, **NO_GPU}))
    return _started[-1]


def end() -> None:
    """Ends all that was started."""
    while _started:
        _started.pop().end()
    warm.cache_clear()


class WarmStart:
    """The process that forks others.

    `command` stands for `python` in a command line; `settings` are variables by which launchers use it for their
    processes; `pid` is its number.
    """

    def __init__(self, folder: Path, modules: Sequence[str], environment: Mapping[str, str]):
        self._folder, address, executable = folder, str(folder / "socket"), folder / "python"
        python = [sys.executable, "-I", "-S", str(ROOT / "tests" / "warm_client.py")]
        executable.write_text(f'#!/bin/sh\nWARM_SOCKET={address} exec {shlex.join(python)} "$@"\n')
        executable.chmod(0o755)
        self.command, self.settings = [str(executable)], {"PYTHON_EXEC": str(executable)}
        words = [sys.executable, __file__, address, *modules]
        self._server = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT
        )
        self.pid = self._server.pid
        while not Path(address).exists() and self._server.poll() is None:
            time.sleep(0.01)

    def run(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """`python` with these words, to its end; `options` are those of `subprocess.run`."""
        environment = {**(options.pop("env", None) or os.environ), **self.settings}
        return subprocess.run(
            [*self.command, *map(str, words)],
            env=environment,
            **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 300, **options},
        )

    def end(self) -> None:
        self._server.communicate()  # closes its input
        shutil.rmtree(self._folder)


def serve(listener: socket.socket) -> list[str]:
    """Answers requests until the standard input ends. Returns only in a forked process, with its command line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forked minders
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
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
        for name in sys.argv[2:]:
            importlib.import_module(name)
        gc.freeze()
        listener.bind(f"{sys.argv[1]}.new")
        listener.listen()
        os.rename(f"{sys.argv[1]}.new", sys.argv[1])  # who sees it can be answered
        words = serve(listener)
    sys.path.pop(0)
    become_and_end(words)
