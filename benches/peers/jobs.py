"""The jobs that are compared: what each is, who takes part, and what ours is held to."""

from dataclasses import dataclass

# In this order in tables and pictures.
PEERS = {
    "ours": "this crate",
    "ours_small": "this crate, 10 MiB resident",
    "limit": "limit",
    "futex": "futex",
    "socket": "socket pair",
    "threads": "threads",
    "procspawn": "procspawn",
    "ipc-channel": "ipc-channel",
    "iceoryx2": "iceoryx2",
    "fork": "Python, fork",
    "forkserver": "Python, forkserver",
    "futures": "Python, futures",
    "joblib": "joblib/loky",
    "mpire": "mpire",
    "pebble": "pebble",
}
PYTHON = ("fork", "forkserver", "futures", "joblib", "mpire", "pebble")
PROCESSES = ("procspawn", "ipc-channel", "iceoryx2")

GROUPS = {
    "pool": "Pools",
    "process": "Processes",
    "link": "Pipes and queues",
    "sync": "Locks and shared memory",
    "fault": "Calls, crashes, many workers",
}


@dataclass
class Job:
    """Its bar is a number of nanoseconds, or a multiple of the time of the peer named.

    Machines differ, and so does one from hour to hour. Where a bar in nanoseconds was set beside a limit, or beside another, it is
    known what that took at the time (`beside`), and the bar is also the multiple of it: it holds if either does.
    """

    group: str
    key: str
    title: str
    limit: str
    most: float | None = None
    of: str | None = None
    beside: float | None = None
    beside_of: str = "limit"
    # Operations in one measurement; None: as many as take a twentieth of a second.
    count: int | None = 1
    unit: str = "ns"
    # How much more of the time it is given than others.
    weight: float = 1
    # What is left out, and why.
    without: tuple = ()
    # All on one processor.
    one_processor: bool = False

    def bar(self):
        if self.most is None:
            return ""
        if self.of:
            return f"<= {self.most:g} x {PEERS[self.of]}"
        return f"<= {show(self.most, self.unit)}" + (f", or {self.multiple():.3g} x {PEERS[self.beside_of]}" if self.beside else "")

    def multiple(self):
        """The bar as a multiple of what it was set beside."""
        return self.most / self.beside

    def needs(self):
        """Whose times the verdict is made of."""
        return {"ours", "ours_small", "limit", self.beside_of} | ({self.of} if self.of else set())


def show(value, unit="ns"):
    """With three digits, in the unit that suits."""
    if unit != "ns":
        return f"{digits(value)} {unit}".strip()
    for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if value >= 0.9995 * size:
            return f"{digits(value / size)} {name}"
    return f"{digits(value)} ns"


def digits(value):
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"


WORD = "a round trip over one shared word, both sides spinning"
# They would be measured after a second of idleness each: only who is near is.
SLOW = ("forkserver", "futures", "joblib", "mpire", "pebble")

JOBS = [
    Job("pool", "map_million", "map 10^6 u64, x*x", "two processes that share all of it, and the parent's copies in and out", 2, "limit",
        weight=1.5),
    Job("pool", "map_100us", "map 2,000 items of about 100 us", "two processes, each with half", 1.03, "threads", weight=2),
    Job("pool", "chunk1", "map 10,000 trivial items with chunk_size(1), each", WORD, 1000, beside=100, count=10_000),
    Job("pool", "apply", "apply, back to back", WORD, 3000, beside=80, count=None),
    Job("pool", "apply_idle", "apply, after a second of idleness", "a round trip by futex after the same second", 1.3, "limit",
        weight=3, without=SLOW),
    Job("pool", "map_8mib", "map 200 items of 8 MiB to their length", "one copy of each into a warm mapping", 3, "limit", weight=1.5),
    Job("pool", "first_pool", "first pool of a program, until 2 calls are answered", "executing this program once", 2e6, beside=840e3),
    Job("pool", "later_pool", "a later pool, until 2 calls are answered", "executing this program once", 8e5, beside=840e3),
    Job("pool", "imap_first", "imap over 10^6 u64, until the first result", ""),
    Job("process", "spawn", "process started and joined (fork server)", "bare fork, exit, wait", 2.5, "limit", count=20),
    Job("process", "spawn_exec", "process started and joined (Spawn)", "executing this program once", 1.5, "limit", count=5),
    Job("process", "spawn_1gib", "process started and joined, 1 GiB resident", "bare fork, exit, wait", 1.1, "ours_small", count=20),
    Job("link", "pipe_rtt", "Pipe round trip of a u64, two processors", WORD, 600, beside=80, count=None),
    Job("link", "pipe_rtt_one", "Pipe round trip of a u64, one processor", "futex", 1.5, "limit", count=None, one_processor=True),
    Job("link", "pipe_u64", "Pipe one way, u64 (bar: 10 M/s)", "a bare ring", 100, beside=12.5, count=None),
    Job("link", "pipe_1k", "Pipe one way, 1 KiB (bar: 4 M/s)", "a bare ring", 250, beside=161, count=None),
    Job("link", "pipe_1m", "Pipe one way, 1 MiB (bar: 12 GiB/s)", "a bare ring", 81_380, beside=36_200, count=None),
    Job("link", "queue_11", "Queue 1 to 1, u64 (bar: 5 M/s)", "a bare ring", 200, beside=18.2, beside_of="threads", count=100_000),
    Job("link", "queue_22", "Queue 2 to 2, u64 (bar: 2 M/s)", "", 500, count=100_000),
    Job("link", "queue_rtt", "Queue round trip of a u64, two processors", WORD, 2000, beside=80, count=None),
    Job("sync", "lock", "Lock and unlock, uncontended", "robust pthread mutex", 12, beside=7.9, count=None),
    Job("sync", "lock_two", "Lock, 2 processes, each increment", "robust pthread mutex", 1.3, "limit", count=200_000),
    Job("sync", "barrier", "Barrier of 2 on two processors, a round", WORD, 300, beside=80, count=20_000),
    Job("sync", "slice_over", "8 MiB in shared memory, handed over", "a descriptor over a socket", 60_000, beside=33_000, count=100),
    Job("sync", "slice_read", "8 MiB in shared memory, handed over and read", "a descriptor, mapped and read", 300_000, beside=181_000, count=20),
    Job("sync", "slice_again", "8 MiB in shared memory, handed over again", "", 5000, count=1000),
    Job("fault", "apply_async", "apply_async, 10,000 outstanding, each", "", 1500, count=10_000),
    Job("fault", "crash", "a worker dies: until its error is told", "bare fork, exit, wait", 5e6),
    Job("fault", "crash_replaced", "a worker dies: until another answers", "twice fork, exit, wait", 5e6),
    Job("fault", "idle_worker", "private memory of an idle worker", "", 1536, unit="KiB"),
    Job("fault", "descriptors", "descriptors in the parent, for each worker", "", 3, unit=""),
    Job("fault", "workers_200", "200 workers, 10 items for each answered", ""),
]
