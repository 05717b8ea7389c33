"""How cost and memory grow with workers, items, the time of an item and its size."""

import statistics
import time

from jobs import show

ITEMS = [10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000]
SWEEPS = {
    "workers": ("workers (2,000 items of 100 us)", [1, 2, 4, 8, 16, 32, 64]),
    "items": ("items of a map, x*x", ITEMS),
    "items_lazily": ("items of an imap, x*x", ITEMS),
    "nanos": ("time of an item, ns", [0, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000]),
    "bytes": ("size of an item, bytes", [8, 64, 512, 4096, 32 << 10, 256 << 10, 2 << 20, 16 << 20, 64 << 20]),
}
TURNS = 5


def measure(peer, until):
    """By sweep and peer: a list of (value, nanoseconds for each item, fastest, what else was seen)."""
    points = sum(len(values) for _, values in SWEEPS.values())
    results = {}
    for kind, (title, values) in SWEEPS.items():
        results[kind] = {}
        began = time.monotonic()
        for value in values:
            # Each point has its share of what time is left, and at least one turn.
            point_ends = time.monotonic() + max(0, until - time.monotonic()) / points
            points -= 1
            for name in ("ours", "threads"):
                one = None
                try:
                    one = peer(name, f"{kind}:{value}")
                    if not one.takes_part:
                        continue
                    first = one.measure(1)
                    samples = []
                    while len(samples) < TURNS and (time.monotonic() < point_ends or len(samples) < 1):
                        samples.append(one.measure(1))
                    times = [sample[0] for sample in samples or [first]]
                    results[kind].setdefault(name, []).append([value, statistics.median(times), min(times), samples[-1][1]])
                except Exception as why:  # One point that fails does not end the curve.
                    print(f"{title}, {value}, {name}: not measured: {why}")
                finally:
                    if one:
                        one.end()
        print(f"scaling: {title} ({time.monotonic() - began:.1f} s)", flush=True)
    return results


def table(results):
    lines = []
    for kind, (title, _) in SWEEPS.items():
        lines += ["", f"| {title} | each | threads | workers, MiB | parent's peak, MiB |", "|---|---|---|---|---|"]
        threads = {point[0]: point[1] for point in results.get(kind, {}).get("threads", [])}
        for value, median, _, seen in results.get(kind, {}).get("ours", []):
            beside = show(threads[value]) if value in threads else ""
            memory = f"{seen.get('workers_mib', 0):.1f} | {seen.get('peak_mib', 0):.1f}"
            lines.append(f"| {value:,} | {show(median)} | {beside} | {memory} |")
    return "\n".join(lines)
