"""How time and memory grow with rows, columns, folds, penalties and clients."""

import concurrent.futures
import statistics
import time

import numpy as np
from matplotlib import pyplot

from client import OwnClient, csv_of

# Rows, features, folds, penalties of what does not grow.
BASE = {"rows": 20_000, "columns": 50, "folds": 5, "penalties": 10}
SIZES = {
    "rows": ({"columns": 20}, [30_000, 100_000, 300_000, 1_000_000]),
    "columns": ({"rows": 10_000}, [125, 250, 500, 1_000]),
    "folds": ({}, [5, 10, 20, 40, 80]),
    "penalties": ({}, [5, 10, 20, 40, 80]),
}
CLIENTS = [1, 2, 4, 8, 16]


def training(api, worker, rows, columns, folds, penalties):
    """Seconds from POST to trained, and the most MiB of API and worker."""
    client, data = OwnClient(api.line), csv_of(rows, columns)
    api.forget_peak()
    worker.forget_peak()

    def run():
        start = time.perf_counter()
        client.train(data, folds, np.logspace(-4, 2, penalties).tolist())
        return time.perf_counter() - start

    return statistics.median(run() for _ in range(3)), api.peak(), worker.peak()


def waiting(api, n_clients):
    """Seconds that a client waits for a small model when so many train one after the other, and the most MiB of the API."""
    data = csv_of(442, 10)
    api.forget_peak()

    def train(_):
        client, times = OwnClient(api.line), []
        for _ in range(30):
            start = time.perf_counter()
            client.train(data, 5, np.logspace(-3, 3, 10).tolist())
            times.append(time.perf_counter() - start)
        return times

    with concurrent.futures.ThreadPoolExecutor(n_clients) as pool:
        times = sum(pool.map(train, range(n_clients)), [])
    return statistics.median(times), api.peak(), float("nan")


def measure(api, worker):
    """For each quantity its sizes, and for each of them seconds and MiB of API and worker."""
    figures = {
        name: (sizes, [training(api, worker, **{**BASE, **others, name: size}) for size in sizes])
        for name, (others, sizes) in SIZES.items()
    }
    figures["clients"] = (CLIENTS, [waiting(api, n) for n in CLIENTS])
    return figures


def exponent(sizes, values):
    """Of the power of the size that fits best in the upper half of the sizes, where what does not grow matters least."""
    half = len(sizes) // 2 - 1
    return np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0]


def report(figures, file):
    """Prints the table, and draws the plots into the file."""
    pyplot.rcParams["svg.hashsalt"] = "ridgeline"
    plots, rows = pyplot.subplots(2, len(figures), figsize=(3 * len(figures), 5), layout="constrained")
    print("| grows | sizes | s | exponent | MiB of the API | MiB of the worker |\n|---|---|---|---|---|---|")
    for column, (name, (sizes, values)) in enumerate(figures.items()):
        times, api, worker = (np.array(part) for part in zip(*values))
        power = exponent(sizes, times)
        cells = [", ".join(f"{value:,.3g}" for value in part) for part in (times, api, worker)]
        print(f"| {name} | {', '.join(f'{size:,}' for size in sizes)} | {cells[0]} | {power:.2f} | {cells[1]} | {cells[2]} |")
        upper, lower = rows[0][column], rows[1][column]
        upper.loglog(sizes, times, "o-")
        upper.set_title(f"{name}: exponent {power:.2f}", fontsize=10)
        lower.loglog(sizes, api, "o-", label="API")
        lower.loglog(sizes, worker, "s-", label="worker")
        lower.set_xlabel(name)
        for axes in (upper, lower):
            axes.grid(True, which="both", linewidth=0.3)
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45, fontsize=7)
            axes.minorticks_off()
    rows[0][0].set_ylabel("POST to trained, s")
    rows[1][0].set_ylabel("most memory, MiB")
    rows[1][0].legend()
    plots.savefig(file, metadata={"Date": None})
