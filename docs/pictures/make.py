#!/usr/bin/env python3
"""Draws docs/pictures/run.svg: what two examples print, run here and now on a terminal of their own.

    python3 -m venv target/pictures && target/pictures/bin/pip install rich==14.0.0
    target/pictures/bin/python docs/pictures/make.py
"""

import os
import pty
import re
import subprocess
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 100
EXAMPLES = ["crash_isolation", "timeouts"]


def run_on_a_terminal(command: list[str]) -> str:
    """Runs a command in a pseudo-terminal and returns what it wrote there; a command that fails ends this program."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    child = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = bytearray()
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # EIO: nobody has the other side any more.
            break
        if not part:
            break
        written += part
    os.close(ours)
    if child.wait() != 0:
        raise SystemExit(f"{command} failed:\n{written.decode()}")
    return written.decode().replace("\r\n", "\n")


def main() -> None:
    subprocess.run(["cargo", "build", "--quiet", "--release", "--examples"], cwd=ROOT, check=True)
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)
    for example in EXAMPLES:
        command = ["cargo", "run", "--quiet", "--release", "--example", example]
        console.print(Text.assemble(("$ ", "bold green"), " ".join(command)))
        console.print(Text.from_ansi(run_on_a_terminal(command)))
    picture = ROOT / "docs" / "pictures" / "run.svg"
    # Without the fonts that it would load from elsewhere: who looks at it has a monospaced one.
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(picture), title="multiprocess", theme=MONOKAI, code_format=form, unique_id="run")
    print(f"wrote {picture.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
