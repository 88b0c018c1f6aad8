"""The machine: what it is, what it can do at most, and who else uses it while something is timed."""

import contextlib
import fcntl
import json
import os
import platform
import subprocess
import time


def facts(repository):
    cpu, flags = "unknown", []
    with contextlib.suppress(OSError):
        for line in open("/proc/cpuinfo"):
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                cpu = value.strip()
            elif name.strip() == "flags":
                flags = value.split()
    interesting = [
        flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8") if flag in flags
    ]
    memory_kib = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))

    def git(*arguments):
        command = ["git", "-C", repository, *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": cpu,
        "cpu_flags": interesting,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "commit": git("rev-parse", "--short", "HEAD")
        + (" with changes" if git("status", "--porcelain", "-uno") else ""),
    }


def memory_available_gib():
    return next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemAvailable")) / 2**20


@contextlib.contextmanager
def at_work(lock_path):
    """Around loading and warming up: with a lock file, nobody times anything meanwhile."""
    with open(lock_path, "a") if lock_path else contextlib.nullcontext() as lock:
        if lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


class Turn:
    """Around each timed run. With a lock file, whoever else times on this machine takes turns with us. Afterwards
    `others` is the number of cores that processes other than ours kept busy."""

    def __init__(self, lock_path=None):
        self.lock_path = lock_path
        self.others = 0.0

    def __enter__(self):
        self.lock = open(self.lock_path, "a") if self.lock_path else None
        if self.lock:
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.start, self.busy, self.own = time.monotonic(), busy_seconds(), own_seconds()
        return self

    def __exit__(self, *_):
        wall = max(1e-3, time.monotonic() - self.start)
        self.others = max(0.0, (busy_seconds() - self.busy) - (own_seconds() - self.own)) / wall
        if self.lock:
            self.lock.close()


def busy_seconds():
    """CPU time of all processes since the machine started. Interrupts are left out: those of our own sockets are
    nobody's."""
    user, nice, system = map(int, open("/proc/stat").readline().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    """CPU time of this process, its descendants and those of them that have ended."""
    parent_of, seconds = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()
            parent_of[int(name)] = int(fields[1])
            seconds[int(name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def is_ours(process):
        while process in parent_of:
            if process == os.getpid():
                return True
            process = parent_of[process]
        return False

    return sum(value for process, value in seconds.items() if is_ours(process))


def ceilings(work, repository, threads, torch_python):
    """What no program can exceed here: [{"what", "value", "unit", "by"}]."""
    found = [*bandwidth(work, repository, threads)]
    if torch_python:
        found += gemm_rates(repository, threads, torch_python)
    return found


def bandwidth(work, repository, threads):
    """Read bandwidth, by a small C program (a C compiler is there, since Rust needs one)."""
    program = f"{work}/read_bandwidth"
    compiled = subprocess.run(
        ["cc", "-O3", "-march=native", "-pthread", "-o", program, f"{repository}/bench/peers/read_bandwidth.c"],
        capture_output=True,
        text=True,
    )
    if compiled.returncode != 0:
        return
    for line in subprocess.run(
        [program, str(threads)], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        name, value = line.rsplit(" ", 1)
        yield {"what": name, "value": float(value), "unit": "GB/s", "by": "bench/peers/read_bandwidth.c"}


def gemm_rates(repository, threads, python):
    """Matrix products through torch (MKL and oneDNN)."""
    lines = subprocess.run(
        [python, f"{repository}/bench/peers/gemm_rates.py", str(threads)], capture_output=True, text=True
    )
    for line in lines.stdout.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def wait_or_kill(process, patience_s=30):
    """Waits for a process that was told to end; kills it when it does not."""
    try:
        process.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
