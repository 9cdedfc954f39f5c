"""Stands for a process that `warm.py` forks: WARM_SOCKET=… python -I -S tests/warm_client.py SCRIPT [OPTION …]

It passes on its folder, environment and files, the signals that it gets, and the other's exit code.
"""

import contextlib
import os
import pickle
import signal
import socket
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ.pop("WARM_SOCKET"))
        request = pickle.dumps((sys.argv[1:], os.getcwd(), dict(os.environ)))
        socket.send_fds(server, [request], [0, 1, 2])
        answers = server.makefile()
        process = int(answers.readline())
        if "WARM_STARTED" in os.environ:  # who waits for this one can see whether the other works
            with contextlib.suppress(FileNotFoundError):  # it has given up
                os.write(os.open(os.environ["WARM_STARTED"], os.O_WRONLY | os.O_APPEND), f"{process}\n".encode())

        def pass_on(number: int, _: object) -> None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(process, number)

        for number in PASSED_ON:
            signal.signal(number, pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        code = int(answers.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
