"""Ridgeline against its peer (peer.py) from end to end, one after the other on the same PostgreSQL, and how its time and memory grow.

Called by script/bench, which see.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import psycopg2

import growth
from client import Client, OwnClient, csv_of
from clock import Clock, seconds
from processes import Process

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
LISTENING = "listening on http://"
# Rows, features, folds, penalties, and how many times the peer's speed is aimed at.
LARGE = {
    "medium": (20_000, 100, 10, np.logspace(-4, 2, 20), 25),
    "tall": (500_000, 20, 5, np.logspace(-4, 2, 10), 15),
    "square": (10_000, 1_000, 5, np.logspace(-4, 2, 10), 15),
    "wide": (500, 10_000, 5, np.logspace(-2, 3, 10), 25),
}
SMALL = (442, 10)
SMALL_JOB = (5, np.logspace(-3, 3, 10).tolist())


def median(clock, n_runs, task):
    """Seconds of a run, all of which the clock sees as one task."""
    times = []
    clock(lambda: times.extend(seconds(task) for _ in range(n_runs)))
    return statistics.median(times)


def small(address, way, clock):
    client, data = way(address), csv_of(*SMALL)
    client.train(data, *SMALL_JOB)
    return median(clock, 15, lambda: client.train(data, *SMALL_JOB))


def jobs_per_second(address, clock, n_jobs=200, n_clients=8):
    """Submits from so many clients at once; until the last is trained."""
    data = csv_of(*SMALL)

    def submit(_):
        client = Client(address)
        return [client.submit(data, *SMALL_JOB) for _ in range(n_jobs // n_clients)]

    def run():
        with concurrent.futures.ThreadPoolExecutor(n_clients) as pool:
            models = sum(pool.map(submit, range(n_clients)), [])
        client = Client(address)
        for model in models:
            client.ended(model)

    return n_jobs / clock(run)


def large(address, way, name, clock):
    n_rows, n_features, n_folds, penalties, _ = LARGE[name]
    client, data = way(address), csv_of(n_rows, n_features)
    runs = 3 if way is OwnClient else 1
    return median(clock, runs, lambda: client.train(data, n_folds, penalties.tolist()))


def predictions(address, way, folder, clock):
    """Milliseconds of a request for one row, such requests a second of eight connections, and rows a second of 100,000."""
    client = way(address)
    model = client.submit(csv_of(2_000, 20), 5, [0.01, 0.1, 1.0])
    client.ended(model)
    row, rows = csv_of(1, 20, seed=5), csv_of(100_000, 20, seed=6)
    yield median(clock, 300, lambda: client.predict(model, row)) * 1000
    script = folder / "one.lua"
    body = row.replace("\n", "\\\\n")
    script.write_text(
        f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{{\"data\": \"{body}\"}}'\n"
        "done = function(summary) if summary.errors.status > 0 then os.exit(1) end end\n"
    )
    url = f"http://{address}/model/{model}/predict"
    wrk = ["wrk", "--threads", "1", "--connections", "8", "--duration", "5s", "--script", script, url]
    replies = []
    clock(lambda: replies.append(subprocess.run(wrk, check=True, stdout=subprocess.PIPE, text=True).stdout))
    yield float(re.search(r"Requests/sec:\s*([\d.]+)", replies[0])[1])
    # From the first byte that is sent to the last one of the reply: Python's own work on both would be most of the time.
    assert len(client.predict(model, rows)) == 100_000
    request = client.body(rows)
    yield 100_000 / median(clock, 5, lambda: client.send_rows(model, *request))


def measure(address, way, folder, clock=seconds):
    """All figures of a service: (name, value, unit, whether more is better)."""
    yield "small: POST to trained", small(address, way, clock) * 1000, "ms", False
    yield "200 small jobs of 8 clients", jobs_per_second(address, clock), "jobs/s", True
    for name in LARGE:
        yield f"{name}: POST to trained", large(address, way, name, clock), "s", False
    predicted = predictions(address, way, folder, clock)
    yield "one row: median", next(predicted), "ms", False
    yield "one row, 8 connections", next(predicted), "requests/s", True
    yield "100,000 rows in a request", next(predicted), "rows/s", True


def limits(folder, database, csv_program):
    """What this machine can do at most, whatever the service."""
    connection = psycopg2.connect(database)
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE commits (n int)")

    def commit():
        cursor.execute("INSERT INTO commits VALUES (1)")
        connection.commit()

    yield "a durable commit", statistics.median(seconds(commit) for _ in range(300)) * 1000, "ms"
    connection.close()
    n_rows, n_features, *_ = LARGE["tall"]
    text = csv_of(n_rows, n_features)
    megabytes = len(text) / 1e6
    file = folder / "tall.csv"
    file.write_text(text)
    parsing, _ = program_output(csv_program, file)
    yield "tall: its CSV", megabytes, "MB"
    yield "tall: its CSV parsed on all cores", megabytes / parsing, "MB/s"
    stored = os.urandom(n_rows * (n_features + 1) * 8)

    def write():
        with open(folder / "stored", "wb") as out:
            out.write(stored)
            os.fdatasync(out.fileno())

    yield "tall: its numbers written durably", megabytes / statistics.median(seconds(write) for _ in range(3)), "MB/s of CSV"
    file.write_text(csv_of(100_000, 20))
    parsing, printing = program_output(csv_program, file)
    yield "100,000 rows parsed, and their predictions printed, on all cores", 100_000 / (parsing + printing), "rows/s"


def program_output(*command):
    text = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout
    return map(float, text.split())


def main(binary, csv_program):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ridgeline-bench-", dir="/var/tmp"))
    processes = []

    def start(*arguments):
        processes.append(Process(*arguments))
        return processes[-1]

    try:
        os.chmod(folder, 0o755)
        environment = {"ROCKET_DATA_DIR": f"{folder}/data", "ROCKET_PORT": "0", "ROCKET_WORKERS": "0"}
        api = start([binary, "serve"], environment, LISTENING)
        worker = start([binary, "worker"], environment, "is ready")
        socket = f"{folder}/data/socket"
        database = f"host={socket} user=ridgeline dbname=postgres"
        print("| limit of the machine | |\n|---|---|")
        for name, value, unit in limits(folder, database, csv_program):
            print(f"| {name} | {value:,.4g} {unit} |", flush=True)
        clock = Clock(api, worker)
        own, cores = zip(*((figure, clock.cores()) for figure in measure(api.line, OwnClient, folder, clock.seconds)))
        same_way = list(measure(api.line, Client, folder))
        figures = growth.measure(api, worker)
        # The peer has the same server to itself; an API without requests sleeps.
        worker.stop()
        url = {"DATABASE_URL": f"postgresql+psycopg2://ridgeline@/postgres?host={socket}"}
        start([sys.executable, "peer.py"], url, "is ready", HERE)
        gunicorn = [sys.executable, "-m", "gunicorn", "--workers", "2", "--timeout", "900", "--bind", "127.0.0.1:0", "peer:app"]
        peer = start(gunicorn, url, "Listening at: http://", HERE)
        theirs = list(measure(peer.line.split()[0], Client, folder))
        print("\n| figure | Ridgeline | the peer's way | peer | ratio | the peer's way |\n|---|---|---|---|---|---|")
        for (name, value, unit, more), (_, same, *_), (_, other, *_) in zip(own, same_way, theirs):
            ratios = [ours / other if more else other / ours for ours in (value, same)]
            print(f"| {name} | {value:,.4g} {unit} | {same:,.4g} | {other:,.4g} | {ratios[0]:.1f} | {ratios[1]:.1f} |")
        print("\n| figure | " + " | ".join(cores[0]) + " |\n" + "|---" * (1 + len(cores[0])) + "|")
        for (name, *_), taken in zip(own, cores):
            print(f"| {name} | " + " | ".join(f"{share:.2f}" for share in taken.values()) + " |")
        print()
        growth.report(figures, ROOT / "docs/performance.svg")
    finally:
        for process in reversed(processes):
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


main(*sys.argv[1:])
