"""Gives all peers their turns at a job.

Each peer is a process of its own, which waits on its input until it is its turn. A round is one turn of each, in an order
that is drawn anew, so that nobody is always behind the same other. A peer that fails, or takes too long, is left out with
a word, and who is slow has fewer turns. Before, between and after the rounds two processes that only compute tell whether
they were kept waiting by others: then the machine was not idle.
"""

import os
import random
import select
import signal
import subprocess
import time
from pathlib import Path

from jobs import PEERS, PYTHON

HERE = Path(__file__).resolve().parent
ROUNDS = 12
# Whose turn takes longer has it once, at its first visit.
SLOW_SECONDS = 1.5
ANSWER_SECONDS = 20


class Failed(Exception):
    """Why a peer takes no part any more."""


class Peer:
    """A process that measures one job."""

    def __init__(self, target, name, job, one_processor=False):
        python = [str(target / "venv/bin/python"), str(HERE / "agent.py"), name, job]
        rust = [str(target / "release/peers"), name, job]
        self.log = open(target / "stderr.txt", "ab")
        # It polls, also when nothing is measured, so it is stopped then.
        self.name, self.polls = name, name == "iceoryx2"
        self.rest = b""
        self.process = subprocess.Popen(
            python if name in PYTHON else rust, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})) if one_processor else None)
        try:
            self.takes_part = self.line(ANSWER_SECONDS) == "ready"
        except BaseException:
            self.end()
            raise
        self.signal(signal.SIGSTOP)

    def signal(self, which):
        if self.polls:
            os.killpg(self.process.pid, which)

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

    def measure(self, count):
        """What one operation took, and what was seen beside it."""
        try:
            self.signal(signal.SIGCONT)
            self.process.stdin.write(f"{count}\n".encode())
            self.process.stdin.flush()
            value, *more = self.line(ANSWER_SECONDS).split()
            self.signal(signal.SIGSTOP)
        except (BrokenPipeError, ProcessLookupError):
            raise Failed("has ended") from None
        pairs = (pair.split("=") for pair in more)
        return float(value), {key: float(value) for key, value in pairs}

    def end(self):
        try:
            self.process.stdin.close()
            self.signal(signal.SIGCONT)
            self.process.wait(2)
        except (BrokenPipeError, ProcessLookupError, subprocess.TimeoutExpired):
            pass
        try:
            # What Python has started takes names in /dev/shm away and ends by itself.
            for _ in range(30 if self.name in PYTHON else 0):
                os.killpg(self.process.pid, 0)
                time.sleep(0.01)
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def once(target, job, count, name="limit"):
    """One measurement of the bare machine, or by one peer."""
    peer = Peer(target, name, job)
    try:
        return peer.measure(count)
    finally:
        peer.end()


def kept_waiting(target):
    """The part of the time that two processes were kept waiting by others, of a few hundredths of a second."""
    return once(target, "probe", 600)[1]["kept_waiting"]


class Visit:
    """Some rounds of one job. What comes of them is added to what earlier visits have gathered."""

    def __init__(self, target, job, seconds, gathered):
        self.target, self.job, self.gathered = target, job, gathered
        self.until = time.monotonic() + seconds
        self.peers, self.counts, self.took, self.first = {}, {}, {}, {}

    def give_up(self, name, why):
        self.gathered["left_out"][name] = str(why)
        if name in self.peers:
            self.peers.pop(name).end()

    def begin(self, name):
        """Starts a peer and lets it do the job once, so that it is warm and what a turn of it takes is known."""
        job = self.job
        peer = Peer(self.target, name, job.key, job.one_processor)
        if not peer.takes_part:
            peer.end()
            self.gathered["absent"].append(name)
            return
        self.peers[name] = peer
        started = time.monotonic()
        first, seen = peer.measure(job.count or 100)
        took = time.monotonic() - started
        count = job.count
        if count is None:
            # Again, as the first had to wait for everything to start.
            first, seen = peer.measure(1000 if first < 1e5 else 100)
            count = max(20, min(2_000_000, int(5e7 / max(first, 1))))
            took = first * count / 1e9
        self.counts[name], self.took[name], self.first[name] = count, took + 0.003, (first, seen)

    def shares(self):
        """How many rounds there are, and how many turns each peer has in them."""
        needed = [self.took[name] for name in self.peers if name in self.job.needs()]
        others = [name for name in self.peers if name not in self.job.needs()]
        left = max(self.until - time.monotonic(), 0)
        rounds = max(3, min(ROUNDS, int(left * (0.55 if others else 0.95) / max(sum(needed), 1e-3))))
        rest = max(left - rounds * sum(needed), left * 0.3)
        turns = {}
        for name in self.peers:
            share = rest / max(len(others), 1) / self.took[name]
            turns[name] = rounds if name in self.job.needs() else max(0, min(rounds, int(share)))
        return rounds, turns

    def make(self):
        samples, more = self.gathered["samples"], self.gathered["more"]
        again = self.gathered["visits"] > 0
        for name in PEERS:
            if name in self.job.without or name in self.gathered["absent"] or name in self.gathered["left_out"]:
                continue
            if again and name in self.gathered["slow"]:
                continue
            try:
                self.begin(name)
            except (OSError, Failed) as why:
                self.give_up(name, why)
        rounds, turns = self.shares()
        for name in self.peers:
            if self.took[name] > SLOW_SECONDS and name not in self.job.needs():
                self.gathered["slow"].append(name)
            if turns[name] == 0 and name not in samples:
                samples[name], more[name] = [self.first[name][0]], [self.first[name][1]]
                self.gathered["slow"].append(name)
        self.gathered["kept_waiting"].append(kept_waiting(self.target))
        for turn in range(rounds):
            if turn >= 3 and time.monotonic() > self.until + 2:
                break
            for name in random.sample(list(self.peers), len(self.peers)):
                # Who has fewer turns has them spread over the rounds.
                if turns[name] * turn // rounds == turns[name] * (turn + 1) // rounds:
                    continue
                # Those measured before fall asleep.
                time.sleep(0.002)
                try:
                    value, seen = self.peers[name].measure(self.counts[name])
                    samples.setdefault(name, []).append(value)
                    more.setdefault(name, []).append(seen)
                except Failed as why:
                    self.give_up(name, why)
            self.gathered["rounds"] += 1
            if turn == rounds // 2:
                self.gathered["kept_waiting"].append(kept_waiting(self.target))
        self.gathered["kept_waiting"].append(kept_waiting(self.target))
        self.gathered["visits"] += 1

    def end(self):
        for name in list(self.peers):
            self.peers.pop(name).end()


def nothing_yet():
    """What is gathered about a job before the first visit."""
    return {"samples": {}, "more": {}, "kept_waiting": [], "left_out": {}, "absent": [], "slow": [], "rounds": 0, "visits": 0}
