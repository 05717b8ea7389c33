"""Tables of what was measured, verdicts, and whether two runs agree."""

import statistics

import scaling
from jobs import GROUPS, JOBS, PEERS, PROCESSES, PYTHON, show

# Kept waiting for more than this part of the time: not idle.
BUSY = 0.05
# With less than this time to measure in, a run is a short one.
WHOLE_SECONDS = 600
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def is_short(everything):
    return everything["circumstances"]["seconds"] < WHOLE_SECONDS


def ratios(result, of):
    """Ours by another's, round by round."""
    samples = result["samples"]
    return [a / b for a, b in zip(samples.get("ours", []), samples.get(of, []))]


def judge(job, result):
    """What ours comes to, as it is compared with the bar, and whether it holds."""
    samples = result["samples"]
    if job.most is None or "ours" not in samples:
        return None, ""
    values = ratios(result, job.of) if job.of else samples["ours"]
    if not values:
        return None, "?"
    value = statistics.median(values)
    multiples = ratios(result, job.beside_of) if job.beside else []
    by_ratio = bool(multiples) and statistics.median(multiples) <= job.multiple()
    doubt = "?" if statistics.median(result["kept_waiting"] or [1]) > BUSY else ""
    return value, ("held" if value <= job.most else "held, as a ratio" if by_ratio else "MISSED") + doubt


def markdown(rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def table(everything, group):
    rows = [["job, 2 workers", "ours", "limit", "x limit", "threads", "best process peer", "best of Python", "bar", ""]]
    for job in JOBS:
        result = everything["jobs"].get(job.key)
        if job.group != group or not result or not result["samples"]:
            continue
        samples = result["samples"]

        def cell(name, named=False):
            if name not in samples:
                return ""
            values, prefix = samples[name], f"{PEERS[name].removeprefix('Python, ')} " if named else ""
            return f"{prefix}{show(statistics.median(values), job.unit)} [{show(min(values), job.unit)}]"

        def best(names):
            there = [name for name in names if name in samples]
            return cell(min(there, key=lambda name: statistics.median(samples[name])), True) if there else ""

        to_limit = ratios(result, "limit")
        value, verdict = judge(job, result)
        bar = job.bar() + (f" ({value:.3g})" if job.of and value else "")
        rows.append([job.title, cell("ours"), cell("limit"), f"{statistics.median(to_limit):.3g}" if to_limit else "", cell("threads"),
                     best(PROCESSES), best(PYTHON), bar, verdict])
    return markdown(rows) if len(rows) > 1 else ""


def beside(everything):
    """What was seen beside the times: medians of all turns."""
    lines = []
    for job in JOBS:
        for name, turns in everything["jobs"].get(job.key, {}).get("more", {}).items():
            seen = {key: statistics.median(turn[key] for turn in turns) for key in (turns[0] if turns else {})}
            if seen:
                told = ", ".join(f"{NAMES.get(key, key)} {show(value) if key in NAMES else f'{value:.3g}'}" for key, value in seen.items())
                lines.append(f"* {job.title}, {PEERS[name]}: {told}")
    return "\n".join(lines)


NAMES = {"p50": "p50", "p99": "p99", "p999": "p99.9", "woken": "with the helpers' waking"}


def left_out(everything):
    lines = [f"* {job.title}: without {PEERS[name]}: {why}" for job in JOBS
             for name, why in everything["jobs"].get(job.key, {}).get("left_out", {}).items()]
    return "\n".join(lines)


def verdicts(everything):
    given = [judge(job, everything["jobs"][job.key])[1] for job in JOBS if job.key in everything["jobs"]]
    given = [one for one in given if one]
    held, doubtful = sum(one.startswith("held") for one in given), sum(one.endswith("?") for one in given)
    return f"{held} of {len(given)} bars held." + (f" {doubtful} verdicts are doubtful (?), since the machine was not idle." if doubtful else "")


def how_busy(everything):
    seen = everything["circumstances"]
    return (f"Processes that only compute were kept waiting {seen['kept_waiting_median']:.1%} of their time by others (median of all "
            f"probes; at most {seen['kept_waiting_most']:.1%}); the host kept {seen['stolen_by_host']:.1%} of the processors' time to itself.")


def how(everything):
    seen = everything["circumstances"]
    rounds = [result["rounds"] for result in everything["jobs"].values() if result["rounds"]] or [0]
    return (f"{'A SHORT RUN, to be taken as a rough one: ' if is_short(everything) else ''}medians of {min(rounds)} to {max(rounds)} "
            f"interleaved rounds in two visits, fastest in brackets; {seen.get('took_seconds', 0)} s.")


def facts(everything):
    seen = everything["circumstances"]
    return [f"{seen['machine']}; {seen['system']}; {seen['rust']}; Python {seen['python']}", ", ".join(seen["peers"]),
            f"{seen['date']}, commit {seen['commit']}"]


def everything(everything):
    parts = [table(everything, group) for group in GROUPS] + [beside(everything), left_out(everything)]
    if everything.get("scaling"):
        parts.append(scaling.table(everything["scaling"]))
    parts.append("\n".join([verdicts(everything), how_busy(everything), how(everything), *facts(everything)]))
    return "\n\n".join(part for part in parts if part)


def write_docs(everything, file):
    """Puts the tables between the two marks."""
    lines = [how(everything).capitalize(), verdicts(everything), how_busy(everything), ""] + [f"* {fact}" for fact in facts(everything)]
    for group, title in GROUPS.items():
        lines += ["", f"### {title}", "", table(everything, group), ""]
        drawn = [job for job in JOBS if job.group == group and everything["jobs"].get(job.key, {}).get("samples", {}).get("ours")]
        lines += [f"![{job.title}: bars](benchmarks/{job.key}.svg)" for job in drawn]
    lines += ["", "### Beside the times", "", beside(everything)]
    if left_out(everything):
        lines += ["", "Left out:", "", left_out(everything)]
    if everything.get("scaling"):
        lines += ["", "### Scaling", "", *[f"![{title}: curves](benchmarks/scaling-{kind}.svg)" for kind, (title, _) in scaling.SWEEPS.items()],
                  scaling.table(everything["scaling"])]
    text = file.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    file.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines).strip() + f"\n\n{END}{after}")


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def agreement(one, other):
    """Two runs agree about a job if the middle halves of what they measured overlap: of the ratio to what the bar names or to
    the limit where there is one, else of the time."""
    rows, agree, total = [["job", "compared", "this run, middle half", "the other", ""]], 0, 0
    for job in JOBS:
        results = [run["jobs"].get(job.key) for run in (one, other)]
        if not all(result and result["samples"].get("ours") for result in results):
            continue
        of = job.of or ("limit" if all(ratios(result, "limit") for result in results) else None)
        values = [ratios(result, of) if of else result["samples"]["ours"] for result in results]
        if not all(values):
            continue
        (low, high), (other_low, other_high) = map(quartiles, values)
        same = low <= other_high and other_low <= high
        agree, total = agree + same, total + 1
        unit = "" if of else job.unit
        spread = [f"{show(statistics.median(some), unit)} [{show(a, unit)} .. {show(b, unit)}]"
                  for some, (a, b) in zip(values, ((low, high), (other_low, other_high)))]
        rows.append([job.title, f"x {PEERS[of]}" if of else "time", *spread, "agree" if same else "DIFFER"])
    return f"{markdown(rows)}\n\n{agree} of {total} jobs agree."
