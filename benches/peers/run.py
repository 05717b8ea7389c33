"""Gives all peers their turns at each job, and tells what came of it. `run.sh` starts it.

Each peer of each job is a process of its own, which waits on its input until it is its turn. A round is one turn of
each, in an order that rotates. A peer that fails, or takes too long, is left out with a word. Who is slow makes fewer
rounds. Before, between and after the rounds two processes that only compute tell whether they were kept waiting by
others: then the machine was not idle, and the verdicts of that job get a question mark.
"""

import argparse
import datetime
import json
import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import scaling
from jobs import JOBS, PEERS, PYTHON, show

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent / "docs" / "benchmarks"
# Kept waiting for more than this part of the time: not idle.
BUSY = 0.05


class Failed(Exception):
    """Why a peer takes no part any more."""


class Peer:
    """A process that measures one job."""

    def __init__(self, target, name, job, one_processor=False):
        python = [str(target / "venv/bin/python"), str(HERE / "agent.py"), name, job]
        rust = [str(target / "release/peers"), name, job]
        self.log = open(target / "stderr.txt", "ab")
        self.process = subprocess.Popen(
            python if name in PYTHON else rust, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})) if one_processor else None)
        self.rest = b""
        self.takes_part = self.line(30) == "ready"

    def line(self, limit):
        until = time.monotonic() + limit
        while b"\n" not in self.rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failed(f"no answer within {limit} s")
            more = os.read(self.process.stdout.fileno(), 4096)
            if not more:
                raise Failed(f"ended with status {self.process.wait()}")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def measure(self, count, limit=30):
        try:
            self.process.stdin.write(f"{count}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed("has ended") from None
        value, *more = self.line(limit).split()
        pairs = (pair.split("=") for pair in more)
        return float(value), {key: float(value) for key, value in pairs}

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def kept_waiting(target):
    """The part of the time that two processes were kept waiting by others, of a few hundredths of a second."""
    peer = Peer(target, "limit", "probe")
    try:
        return peer.measure(600)[1]["kept_waiting"]
    finally:
        peer.end()


def compare(target, job, rounds, seconds):
    """Measures a job: samples by peer, in the order of the rounds, and what was seen beside the times."""
    peers, counts, left, samples, more, words = {}, {}, {}, {}, {}, []

    def give_up(name, why):
        words.append(f"{PEERS[name]} left out: {why}")
        peers.pop(name).end()

    for name in PEERS:
        if name in job.without:
            continue
        peers[name] = peer = None
        try:
            peers[name] = peer = Peer(target, name, job.key, job.one_processor)
        except (OSError, Failed) as why:
            words.append(f"{PEERS[name]} left out: {why}")
            peers.pop(name)
            continue
        if not peer.takes_part:
            peers.pop(name).end()
            continue
        try:
            warm_count = job.count or 100
            started = time.monotonic()
            first, seen = peer.measure(warm_count)
            took = time.monotonic() - started
            if job.count is None:
                # Again, as the first had to wait for everything to start.
                first, seen = peer.measure(1000 if first < 1e5 else 100)
                counts[name] = max(20, min(2_000_000, int(5e7 / max(first, 1))))
                took = first * counts[name] / 1e9
            else:
                counts[name] = job.count
            left[name] = rounds if name in ("ours", "ours_small", "limit") else max(0, min(rounds, int(seconds / max(took, 1e-3))))
            samples[name], more[name] = ([first], seen) if left[name] == 0 else ([], seen)
        except Failed as why:
            give_up(name, why)
    waited = [kept_waiting(target)]
    for turn in range(rounds):
        names = list(peers)
        start = turn % max(len(names), 1)
        for name in names[start:] + names[:start]:
            if turn >= left[name]:
                continue
            # Those measured before fall asleep.
            time.sleep(0.002)
            try:
                value, seen = peers[name].measure(counts[name])
                samples[name].append(value)
                more[name] = seen
            except Failed as why:
                give_up(name, why)
        if turn == rounds // 2:
            waited.append(kept_waiting(target))
    waited.append(kept_waiting(target))
    for peer in peers.values():
        peer.end()
    samples = {name: values for name, values in samples.items() if values}
    return {"samples": samples, "more": more, "kept_waiting": waited, "left_out": words}


def judge(job, result):
    """What ours comes to, as it is compared with the bar, and whether it holds."""
    samples = result["samples"]
    if job.most is None or "ours" not in samples:
        return None, ""
    value = statistics.median(samples["ours"])
    if job.of:
        if job.of not in samples:
            return None, "?"
        value = statistics.median(a / b for a, b in zip(samples["ours"], samples[job.of]))
    doubt = "?" if max(result["kept_waiting"]) > BUSY else ""
    return value, ("held" if value <= job.most else "MISSED") + doubt


def table(results):
    columns = ["job, 2 workers", "ours", "limit", "x limit", "threads", "best process peer", "best of Python", "bar", ""]
    rows = [columns, ["---"] * len(columns)]
    for job in JOBS:
        if job.key not in results:
            continue
        samples = results[job.key]["samples"]

        def cell(name, named=False):
            if name not in samples:
                return ""
            values, prefix = samples[name], f"{PEERS[name].removeprefix('Python, ')} " if named else ""
            return f"{prefix}{show(statistics.median(values), job.unit)} [{show(min(values), job.unit)}]"

        def best(names):
            there = [name for name in names if name in samples]
            return cell(min(there, key=lambda name: statistics.median(samples[name])), True) if there else ""

        ratio = ""
        if "limit" in samples and "ours" in samples:
            ratio = f"{statistics.median(a / b for a, b in zip(samples['ours'], samples['limit'])):.2f}"
        value, verdict = judge(job, results[job.key])
        bar = job.bar() + (f" ({value:.2f})" if job.of and value else "")
        rows.append([job.title, cell("ours"), cell("limit"), ratio, cell("threads"),
                     best(("procspawn", "ipc-channel", "iceoryx2")), best(PYTHON), bar, verdict])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def beside(results):
    """What was seen beside the times."""
    lines = []
    for job in JOBS:
        for name, seen in results.get(job.key, {}).get("more", {}).items():
            if seen:
                told = ", ".join(f"{key} {show(value) if key[0] == 'p' and key[1:].isdigit() else f'{value:.3g}'}"
                                 for key, value in seen.items())
                lines.append(f"* {job.title}, {PEERS[name]}: {told}")
    return "\n".join(lines)


def circumstances(target):
    def told(*command):
        try:
            return subprocess.run(command, capture_output=True, text=True, cwd=HERE).stdout.strip()
        except OSError:
            return "?"

    processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    packages = told(str(target / "venv/bin/pip"), "list", "--format=freeze").split()
    wanted = tuple(line.split("==")[0] for line in (HERE / "requirements.txt").read_text().split())
    lock = (HERE / "Cargo.lock").read_text().split("[[package]]")
    crates = [part.split('"')[1] + " " + part.split('"')[3] for part in lock if part.strip().startswith("name")]
    named = ("rayon ", "crossbeam-channel ", "procspawn ", "ipc-channel ", "iceoryx2 ")
    return {
        "machine": f"{processor}, {os.cpu_count()} processors", "system": platform.release(),
        "rust": told("rustc", "--version"), "python": platform.python_version(),
        "peers": [one for one in crates if one.startswith(named)] + [one for one in packages if one.startswith(wanted)],
        "date": datetime.datetime.now().isoformat(" ", "minutes"),
        "commit": told("git", "rev-parse", "--short", "HEAD") + (" and changes" if told("git", "status", "--porcelain", "-uno") else ""),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("target", type=Path)
    parser.add_argument("--quick", action="store_true", help="two small rounds")
    parser.add_argument("--only", default="", help="these jobs, with commas between")
    parser.add_argument("--no-scaling", action="store_true")
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    options = parser.parse_args()
    target = options.target.resolve()
    out = target if options.quick else OUT
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    everything = json.loads(file.read_text()) if file.exists() else {}
    results = everything.setdefault("jobs", {})
    rounds, seconds = (2, 0.3) if options.quick else (12, 1.5)
    started = time.monotonic()
    everything["circumstances"] = everything.get("circumstances") if options.draw else circumstances(target)
    for job in [] if options.draw else JOBS:
        if options.only and job.key not in options.only.split(","):
            continue
        began = time.monotonic()
        try:
            results[job.key] = compare(target, job, rounds, seconds)
        except Exception as why:  # One job that fails does not end the others.
            print(f"{job.title}: not measured: {why!r}", flush=True)
            continue
        result = results[job.key]
        ours = result["samples"].get("ours")
        print(f"{job.title}: {show(statistics.median(ours), job.unit) if ours else 'nothing'} {judge(job, result)[1]}"
              f" ({time.monotonic() - began:.0f} s)", *result["left_out"], sep="\n  ", flush=True)
        file.write_text(json.dumps(everything, indent=1))
    if not (options.no_scaling or options.draw or options.only):
        everything["scaling"] = scaling.measure(lambda name, job: Peer(target, name, job), options.quick)
        file.write_text(json.dumps(everything, indent=1))
    print(f"\n{table(results)}\n\n{beside(results)}\n")
    if "scaling" in everything:
        print(scaling.table(everything["scaling"]), "\n")
    verdicts = [judge(job, results[job.key])[1] for job in JOBS if job.key in results]
    waited = [one for result in results.values() for one in result["kept_waiting"]]
    print(f"{sum(v.startswith('held') for v in verdicts)} of {sum(bool(v) for v in verdicts)} bars held.")
    print(f"Processes that only compute were kept waiting {statistics.median(waited):.1%} of their time by others, at most "
          f"{max(waited):.1%}" + (": the machine was not idle, and verdicts with ? do not hold." if max(waited) > BUSY else "."))
    for key, value in everything["circumstances"].items():
        print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    print(f"{time.monotonic() - started:.0f} s; medians of {rounds} interleaved rounds, fastest in brackets")
    try:
        import draw
    except ImportError as why:
        print(f"no pictures: {why}")
        return
    draw.draw(everything, out)
    print(f"in {out}: results.json and pictures")


if __name__ == "__main__":
    sys.exit(main())
