"""Measures all jobs and the curves of scaling in the time that it is given, and tells what came of it. `run.sh` starts it.

Each job is visited twice, minutes apart, since a virtual machine is another one from minute to minute: first with all
peers, then with those who are not slow. Who needs less than its share leaves the rest to those that follow.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import draw
import report
import scaling
from jobs import JOBS, show
from turns import Peer, Visit, kept_waiting, nothing_yet, once

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUT = ROOT / "docs" / "benchmarks"
# The whole of it; with less it is called a short run.
SECONDS = 750
SCALING = "scaling"
# Of the time: the curves, and of what is left the first visits.
SCALING_PART, FIRST_PART = 0.15, 0.62


def circumstances(target, seconds):
    def told(*command):
        try:
            return subprocess.run(command, capture_output=True, text=True, cwd=HERE).stdout.strip()
        except OSError:
            return "?"

    processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    packages = told(str(target / "venv/bin/pip"), "list", "--format=freeze").split()
    wanted = tuple(line.split("==")[0].lower() + "==" for line in (HERE / "requirements.txt").read_text().split())
    built = (target / "features").read_text().strip().split(",")
    tree = told("cargo", "tree", "--depth", "1", "--prefix", "none", "--all-features").splitlines()
    crates = [" ".join(line.split()[:2]) for line in tree if line.startswith(("rayon ", "crossbeam-channel ", *(f"{one} " for one in built)))]
    return {
        "machine": f"{processor}, {os.cpu_count()} processors", "system": f"Linux {platform.release()}",
        "rust": told("rustc", "--version"), "python": platform.python_version(),
        "peers": crates + [one.replace("==", " ") for one in packages if one.lower().startswith(wanted)],
        "date": datetime.datetime.now().isoformat(" ", "minutes"),
        "commit": told("git", "rev-parse", "--short", "HEAD") + (" and changes" if told("git", "status", "--porcelain", "-uno") else ""),
        "seconds": round(seconds),
    }


def set_burn_units(target):
    """Tells all peers how many units of its language's loop an item of 100 us has: what takes that long at the machine's
    fastest. Whoever measured it alone would do so at one moment's speed, and its items would be shorter than others'."""
    variables = ("PEERS_BURN_UNITS", "PEERS_BURN_UNITS_PYTHON")
    for variable in variables:
        os.environ.pop(variable, None)
    tries = [(once(target, "burn_units", 1)[0], once(target, "burn_units", 1, "fork")[0]) for _ in range(8)]
    for variable, units in zip(variables, zip(*tries)):
        os.environ[variable] = f"{max(units):.0f}"


def stolen():
    """The time that the host has kept from this machine's processors, and all of their time."""
    figures = [int(figure) for figure in open("/proc/stat").readline().split()[1:9]]
    return figures[7], sum(figures)


def measure(target, jobs, curves, seconds):
    started, before = time.monotonic(), stolen()
    set_burn_units(target)
    gathered = {job.key: nothing_yet() for job in jobs}
    everything = {"circumstances": circumstances(target, seconds), "jobs": gathered}
    end = started + seconds
    curves_end = end - started if not jobs else seconds * SCALING_PART if curves else 0
    first_end = started + (seconds - curves_end) * FIRST_PART

    def visit(until, word):
        weights = sum(job.weight for job in jobs)
        for job in jobs:
            began = time.monotonic()
            share = max(0.0, (until - began) * job.weight / weights)
            weights -= job.weight
            one = gathered[job.key]
            if began > end + (0 if one["visits"] else seconds * 0.1):
                print(f"{job.title}: not measured{' again' if one['visits'] else ''}, for want of time", flush=True)
                continue
            visited = Visit(target, job, share, one)
            known = set(one["left_out"])
            try:
                visited.make()
            except Exception as why:  # One job that fails does not end the others.
                print(f"{job.title}: not measured: {why!r}", flush=True)
            finally:
                visited.end()
            ours = one["samples"].get("ours")
            print(f"[{time.monotonic() - started:3.0f} s] {word} {job.title}: {show(statistics.median(ours), job.unit) if ours else 'nothing'}"
                  f" {report.judge(job, one)[1]} ({time.monotonic() - began:.1f} s)", flush=True)
            for name in one["left_out"].keys() - known:
                print(f"    without {report.PEERS[name]}: {one['left_out'][name]}", flush=True)

    visit(first_end, "1:")
    if curves:
        until = time.monotonic() + curves_end
        everything["scaling"] = scaling.measure(lambda name, job: Peer(target, name, job), until)
    visit(end, "2:")
    after = stolen()
    waited = [one for job in gathered.values() for one in job["kept_waiting"]] or [kept_waiting(target)]
    everything["circumstances"] |= {
        "took_seconds": round(time.monotonic() - started),
        "kept_waiting_median": statistics.median(waited), "kept_waiting_most": max(waited),
        "stolen_by_host": (after[0] - before[0]) / max(after[1] - before[1], 1),
    }
    return everything


def main():
    parser = argparse.ArgumentParser(prog="benches/peers/run.sh", description="Measures this crate beside its peers.")
    parser.add_argument("target", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"time to measure in, {SECONDS} if not given")
    parser.add_argument("--out", type=Path, help="where results.json and the pictures go; docs/benchmarks, and the tables into "
                        "docs/BENCHMARKS.md, if not given and all is measured")
    parser.add_argument("--only", default="", metavar="NAMES", help=f"these jobs, with commas between; or {SCALING}")
    parser.add_argument("--compare", type=Path, metavar="OTHER.json", help="tell where this run and another one agree")
    parser.add_argument("--draw", type=Path, metavar="JSON", help="measure nothing: tables and pictures of an earlier run")
    options = parser.parse_args()
    target = options.target.resolve()
    only = options.only.split(",") if options.only else []
    unknown = set(only) - {job.key for job in JOBS} - {SCALING}
    if unknown:
        parser.error(f"no such job: {', '.join(sorted(unknown))}; there are {', '.join(job.key for job in JOBS)}, {SCALING}")
    # procspawn needs three descriptors for each queued call.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    # Now, since what this run writes may take its place.
    other = json.loads(options.compare.read_text()) if options.compare else None
    if options.draw:
        everything = json.loads(options.draw.read_text())
    else:
        jobs = [job for job in JOBS if not only or job.key in only]
        everything = measure(target, jobs, not only or SCALING in only, options.seconds)
    out = options.out or (target / "some" if only else OUT)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(everything, separators=(",", ":")) + "\n")
    print(f"\n{report.everything(everything)}\n")
    if other:
        print(report.agreement(everything, other), "\n")
    draw.draw(everything, out)
    print(f"in {out}: results.json and the pictures")
    if out == OUT:
        report.write_docs(everything, ROOT / "docs" / "BENCHMARKS.md")
        print("in docs/BENCHMARKS.md: the tables")


if __name__ == "__main__":
    sys.exit(main())
