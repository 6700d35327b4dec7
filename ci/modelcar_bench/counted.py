"""Runs a command and prints what the kernel counted for it and its children, as one JSON object.

A program of its own that imports next to nothing: the kernel charges a new process with the memory of the one that it
was made from (`maxrss` of the address space that `execve` replaces), so its parent has to be small.

`python -I -S counted.py LOG COMMAND [ARGUMENT ...]`
"""

import json
import os
import sys
import time


def count(log: str, command: list[str]) -> dict[str, float]:
    """Run a command to its end.

    Returns:
        `wall_s`, `cpu_s`, `memory_bytes`, `written_bytes` and `exit_code`. What was written is counted in blocks of 512
        bytes, whatever the file system's are (`task_io_get_oublock` of Linux: `write_bytes` of proc_pid_io(5)).
    """
    started = time.perf_counter()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    actions = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(process, 0)
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "memory_bytes": usage.ru_maxrss * 1024,
        "written_bytes": usage.ru_oublock * 512,
        "exit_code": os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    print(json.dumps(count(sys.argv[1], sys.argv[2:])))  # noqa: T201 - what its starter reads
