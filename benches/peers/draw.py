"""Draws what was measured, as SVG: bars on a log axis, one picture for each job; the curves of scaling; a summary for the
README in a light and a dark one. Needs nothing but Python."""

import math
import statistics
from html import escape

from jobs import JOBS, PEERS, PYTHON, show
from report import is_short
from scaling import SWEEPS

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
LIGHT = {"card": "#ffffff", "edge": "#d1d9e0", "text": "#1f2328", "quiet": "#59636e", "grid": "#eaeef2",
         "ours": "#c2410c", "rust": "#64748b", "snake": "#9db4c8", "line": "#15803d"}
DARK = {"card": "#0d1117", "edge": "#3d444d", "text": "#e6edf3", "quiet": "#9198a1", "grid": "#21262d",
        "ours": "#fb923c", "rust": "#94a3b8", "snake": "#526b82", "line": "#4ade80"}
SUMMARY = ("map_million", "apply", "map_8mib", "spawn", "pipe_u64", "crash_replaced")
WIDTH, LABELS, VALUES, ROW = 720, 178, 74, 22
# Of the README's: three rows of two.
GAP = 16


def rules(colours):
    return "".join(f".{name}{{fill:{colour}}}" for name, colour in colours.items() if name not in ("edge", "grid", "line")) + (
        f".card{{stroke:{colours['edge']}}}.grid{{stroke:{colours['grid']}}}.limit{{stroke:{colours['line']}}}.told{{fill:{colours['line']}}}"
        f".curve-ours{{stroke:{colours['ours']}}}.curve-rust{{stroke:{colours['rust']}}}")


def picture(width, height, parts, what, colours=None):
    """In the colours given, or in those that whoever looks prefers."""
    style = rules(colours) if colours else f"{rules(LIGHT)}@media(prefers-color-scheme:dark){{{rules(DARK)}}}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
            f'role="img" font-family="{FONT}" font-size="12"><title>{escape(what)}</title>'
            f'<style>{style}.curve{{fill:none;stroke-width:2}}</style>\n'
            f'<rect class="card" x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="6"/>\n' + "\n".join(parts) + "\n</svg>\n")


def text(x, y, words, kind="text", anchor="start", more=""):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def line(x1, y1, x2, y2, kind, more=""):
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{more}/>'


class Log:
    """From values to places, by their logarithms. Nothing at all stands a step before the smallest."""

    def __init__(self, values, start, end, room=1.0):
        positive = [value for value in values if value > 0]
        low, high = min(positive) / room, max(positive) * room
        self.zero = min(values) <= 0
        if self.zero:
            low /= 10
        self.low, self.high = math.log10(low), math.log10(high) if high > low else math.log10(low * 10)
        self.start, self.end = start, end

    def __call__(self, value):
        log = math.log10(value) if value > 0 else self.low
        return self.start + (log - self.low) / (self.high - self.low) * (self.end - self.start)

    def marks(self):
        """Round values between, few enough to be told apart."""
        whole = range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)
        step = max(1, math.ceil(len(whole) / 6))
        marks = [10.0 ** power for power in whole if power % step == 0]
        if len(marks) < 2:
            marks = [base * 10.0 ** power for power in range(math.floor(self.low), math.ceil(self.high) + 1) for base in (1, 2, 5)]
        return [mark for mark in marks if self.low - 1e-9 <= math.log10(mark) <= self.high + 1e-9 and not (self.zero and math.log10(mark) < self.low + 0.9)]


def kind_of(name):
    return "ours" if name.startswith("ours") else "snake" if name in PYTHON else "rust"


def bars(job, result, x, y, width):
    """One job's, with its title; and how high that is."""
    medians = {name: statistics.median(result["samples"][name]) for name in PEERS if name in result["samples"]}
    limit = medians.pop("limit", None)
    scale = Log([*medians.values(), *([limit] if limit else [])], x + LABELS, x + width - VALUES, 1.0)
    # Room for the shortest bar.
    scale.low -= max(0.12 * (scale.high - scale.low), 0.15)
    top, bottom = y + 44, y + 44 + ROW * len(medians)
    parts = [text(x + 12, y + 22, job.title, "text", more=' font-weight="600" font-size="13"')]
    for mark in scale.marks():
        parts += [line(scale(mark), top - 2, scale(mark), bottom + 2, "grid"),
                  text(scale(mark), bottom + 16, show(mark, job.unit), "quiet", "middle", ' font-size="10.5"')]
    for at, (name, median) in enumerate(medians.items()):
        middle = top + ROW * at + ROW / 2
        weight = ' font-weight="600"' if name == "ours" else ""
        parts += [text(x + LABELS - 8, middle + 4, PEERS[name], "text", "end", weight),
                  f'<rect class="{kind_of(name)}" x="{scale.start:.1f}" y="{middle - 7:.1f}" width="{max(scale(median) - scale.start, 1):.1f}" height="14" rx="2"/>',
                  text(scale(median) + 6, middle + 4, show(median, job.unit), "text", "start", weight)]
    if limit:
        parts += [line(scale(limit), top - 6, scale(limit), bottom + 2, "limit", ' stroke-width="1.5" stroke-dasharray="4 3"'),
                  text(scale(limit), top - 9, f"limit {show(limit, job.unit)}", "told", "middle", ' font-size="10.5"')]
    return parts, bottom + 26 - y


def summary(everything, chosen):
    """The pictures of some jobs in one, with a word on what they are."""
    seen = everything["circumstances"]
    parts, y, width = [], 44, (2 * 620 + GAP) / 2
    parts.append(text(12, 26, "Time for each job, shorter is better; log axes" + ("; A SHORT RUN, NOT THE MEASUREMENT" if is_short(everything) else ""),
                      "text", more=' font-weight="600" font-size="15"'))
    for first in range(0, len(chosen), 2):
        heights = [0]
        for column, job in enumerate(chosen[first:first + 2]):
            more, height = bars(job, everything["jobs"][job.key], column * width, y, width - 6)
            parts += more
            heights.append(height)
        y += max(heights) + GAP
    parts.append(text(12, y + 4, f"{seen['machine']}, {seen['system']}, {seen['date'].split()[0]}; 2 workers or threads each; medians of interleaved rounds, all in one run. "
                      "Dashed: what the bare machine allows.", "quiet", more=' font-size="11"'))
    return 2 * width, y + 18, parts


def axes(x, y, width, height, across, up, title, below, unit_up):
    """A frame with its marks."""
    parts = [text(x, y - 12, title, "text", more=' font-weight="600"'), text(x + width / 2, y + height + 34, below, "quiet", "middle", ' font-size="11"')]
    for mark in across.marks() + ([0] if across.zero else []):
        parts += [line(across(mark), y, across(mark), y + height, "grid"),
                  text(across(mark), y + height + 16, short(mark), "quiet", "middle", ' font-size="10.5"')]
    for mark in up.marks():
        parts += [line(x, up(mark), x + width, up(mark), "grid"), text(x - 6, up(mark) + 4, show(mark, unit_up), "quiet", "end", ' font-size="10.5"')]
    return parts


def short(number):
    for size, name in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{name}"
    return f"{number:g}"


def curve(points, across, up, kind, dashed=""):
    places = [(across(a), up(b)) for a, b in points if b > 0]
    dots = [f'<circle class="{kind}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in places]
    return [f'<polyline class="curve curve-{kind}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}"{dashed}/>', *dots]


def curves(kind, measured):
    ours, threads = measured["ours"], measured.get("threads", [])
    wide, high, left, top = 300, 190, 70, 46
    values = [point[0] for point in ours]
    parts = []
    across = Log(values, left, left + wide)
    costs = [point[1] for point in ours + threads]
    up = Log(costs, top + high, top, 1.6)
    parts += axes(left, top, wide, high, across, up, "time for each item", SWEEPS[kind][0], "ns")
    parts += curve([(point[0], point[1]) for point in threads], across, up, "rust", ' stroke-dasharray="5 4"')
    parts += curve([(point[0], point[1]) for point in ours], across, up, "ours")
    second = left + wide + 90
    across = Log(values, second, second + wide)
    memory = [[(point[0], point[3].get(key, 0)) for point in ours] for key in ("workers_mib", "peak_mib")]
    up = Log([value for some in memory for _, value in some if value > 0] or [1], top + high, top, 1.6)
    parts += axes(second, top, wide, high, across, up, "memory", SWEEPS[kind][0], "MiB")
    parts += curve(memory[1], across, up, "rust", ' stroke-dasharray="5 4"') + curve(memory[0], across, up, "ours")
    legend = top + high + 56
    parts += [text(left, legend, "this crate", "ours"), *([text(left + 80, legend, "rayon", "rust")] if threads else []),
              text(second, legend, "all workers (PSS)", "ours"), text(second + 130, legend, "the parent's peak", "rust")]
    return second + wide + 24, legend + 16, parts


def draw(everything, out):
    there = [job for job in JOBS if everything["jobs"].get(job.key, {}).get("samples", {}).get("ours")]
    for job in there:
        parts, height = bars(job, everything["jobs"][job.key], 0, 0, WIDTH)
        if is_short(everything):
            parts.append(text(WIDTH - 12, 22, "a short run", "quiet", "end"))
        (out / f"{job.key}.svg").write_text(picture(WIDTH, height + 8, parts, job.title))
    chosen = [job for key in SUMMARY for job in there if job.key == key]
    if chosen:
        for name, colours in (("summary", LIGHT), ("summary-dark", DARK)):
            (out / f"{name}.svg").write_text(picture(*summary(everything, chosen), "Times of this crate and its peers", colours))
    for kind, measured in everything.get("scaling", {}).items():
        if measured.get("ours"):
            (out / f"scaling-{kind}.svg").write_text(picture(*curves(kind, measured), SWEEPS[kind][0]))
