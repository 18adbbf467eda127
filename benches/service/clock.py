"""How long tasks take, and what of the cores."""

import os
import time

import psutil


def seconds(task):
    """That a task takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


class Clock:
    """Times tasks, and what API, worker, PostgreSQL and this process take of the cores meanwhile."""

    def __init__(self, api, worker):
        self.api, self.worker = (psutil.Process(process.child.pid) for process in (api, worker))
        self.elapsed, self.used = 0.0, {}

    def seconds(self, task):
        before, elapsed = self.processor_seconds(), seconds(task)
        self.elapsed += elapsed
        self.used = {name: self.used.get(name, 0) + used - before[name] for name, used in self.processor_seconds().items()}
        return elapsed

    def processor_seconds(self):
        """So far. The private PostgreSQL is a child of the API."""
        of = {"API": [self.api], "worker": [self.worker], "PostgreSQL": self.api.children(recursive=True)}
        used = {name: sum(sum(process.cpu_times()[:2]) for process in processes) for name, processes in of.items()}
        return {**used, "client": sum(os.times()[:4])}

    def cores(self):
        """How many cores each has taken on average since the last call."""
        cores = {name: used / self.elapsed for name, used in self.used.items()}
        self.elapsed, self.used = 0.0, {}
        return cores
