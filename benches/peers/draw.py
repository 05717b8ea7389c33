"""Draws what was measured: bars on a log axis, one picture for each job, and the curves of scaling."""

import statistics

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "peers", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, NullFormatter

from jobs import JOBS, PEERS, PYTHON, show
from scaling import SWEEPS

OURS, RUST, SNAKE, LINE = "#c2410c", "#64748b", "#9db4c8", "#15803d"
OVERVIEW = ("map_million", "apply", "spawn", "pipe_u64", "queue_11", "crash_replaced")


def colour(name):
    return OURS if name.startswith("ours") else SNAKE if name in PYTHON else RUST


def bars(axes, job, result):
    samples = result["samples"]
    names = [name for name in PEERS if name in samples and name != "limit"][::-1]
    medians = [statistics.median(samples[name]) for name in names]
    limit = statistics.median(samples["limit"]) if "limit" in samples else None
    low = min(medians + ([limit] if limit else [])) / 2.5
    axes.barh([PEERS[name] for name in names], [median - low for median in medians], left=low, log=True,
              color=[colour(name) for name in names], height=0.7)
    for at, median in enumerate(medians):
        axes.text(median * 1.1, at, show(median, job.unit), va="center", fontsize=9)
    axes.set_xlim(low, max(medians) * 6)
    if limit:
        axes.axvline(limit, color=LINE, linestyle="--", linewidth=1.5)
        axes.text(limit * 1.05, len(names) - 0.45, f"limit {show(limit, job.unit)}", color=LINE, fontsize=9, va="bottom")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value, job.unit)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", length=0)
    axes.set_title(job.title, loc="left", fontsize=11, fontweight="bold", pad=16)
    return len(names)


def save(figure, file):
    figure.savefig(file, metadata={"Date": None}, bbox_inches="tight", facecolor="white")
    pyplot.close(figure)


def draw(everything, out):
    there = [job for job in JOBS if everything["jobs"].get(job.key, {}).get("samples", {}).get("ours")]
    for job in there:
        result = everything["jobs"][job.key]
        figure, axes = pyplot.subplots(figsize=(7.5, 0.9 + 0.33 * len(result["samples"])))
        bars(axes, job, result)
        save(figure, out / f"{job.key}.svg")
    chosen = [job for job in there if job.key in OVERVIEW]
    if chosen:
        height = (len(chosen) + 1) // 2
        figure, grid = pyplot.subplots(height, 2, figsize=(13, 3.6 * height), squeeze=False)
        for axes in grid.flat[len(chosen):]:
            axes.set_visible(False)
        for job, axes in zip(chosen, grid.flat):
            bars(axes, job, everything["jobs"][job.key])
        figure.tight_layout(w_pad=3, h_pad=2)
        save(figure, out / "overview.svg")
    for kind, curves in everything.get("scaling", {}).items():
        if "ours" in curves:
            curve(kind, curves, out)


def curve(kind, curves, out):
    figure, (cost, memory) = pyplot.subplots(1, 2, figsize=(11, 3.8))
    title = SWEEPS[kind][0]
    for name, style in (("ours", "o-"), ("threads", "s--")):
        points = curves.get(name, [])
        cost.plot([point[0] for point in points], [point[1] for point in points], style, color=colour(name),
                  label="this crate" if name == "ours" else "rayon") if points else None
    cost.set(xscale="log", yscale="log", xlabel=title)
    cost.set_title("time for each item", loc="left", fontweight="bold")
    cost.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    cost.yaxis.set_minor_formatter(NullFormatter())
    cost.legend(frameon=False)
    values = [point[0] for point in curves["ours"]]
    for key, label, style in (("workers_mib", "all workers (PSS)", "o-"), ("peak_mib", "the parent's peak", "s--")):
        memory.plot(values, [point[3].get(key, 0) for point in curves["ours"]], style, label=label, color=OURS if key[0] == "w" else RUST)
    memory.set(xscale="log", xlabel=title)
    memory.set_ylim(bottom=0)
    memory.set_title("memory, MiB", loc="left", fontweight="bold")
    memory.legend(frameon=False)
    figure.tight_layout()
    save(figure, out / f"scaling-{kind}.svg")
