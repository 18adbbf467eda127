"""Processes that log, and what they take."""

import os
import resource
import subprocess
import sys
import tempfile
import time


class Process:
    """A process that has logged a line with `words`; `line` is what comes behind them."""

    def __init__(self, command, environment, words, folder=None):
        self.log = tempfile.TemporaryFile("w+")
        environment = {**os.environ, **environment}
        self.child = subprocess.Popen(command, env=environment, cwd=folder, stdout=self.log, stderr=self.log)
        self.line = self.wait_for(words)

    def wait_for(self, words):
        for _ in range(600):
            self.log.seek(0)
            for line in self.log:
                if words in line:
                    return line.split(words, 1)[1].strip()
            if self.child.poll() is not None:
                break
            time.sleep(0.1)
        self.log.seek(0)
        sys.exit("the process did not start:\n" + self.log.read())

    def limit(self, megabytes):
        """Limits its address space, once it has started: what it has started itself is not limited."""
        resource.prlimit(self.child.pid, resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    def peak(self, name="VmHWM"):
        """The most that it has taken so far, in MiB."""
        with open(f"/proc/{self.child.pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))

    def forget_peak(self):
        """Begins to look for the most resident memory anew."""
        with open(f"/proc/{self.child.pid}/clear_refs", "w") as refs:
            refs.write("5")

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            self.child.wait(60)
