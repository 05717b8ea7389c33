"""One job of one of Python's libraries, measured on request, as `peers` does for Rust: `agent.py VARIANT JOB`.

It says `ready`, or `none` where it has nothing to measure; then each line on its input says how many operations to do,
and its answer is what one took, in nanoseconds, and perhaps more as `key=value`.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import shared_memory

MILLION = 1_000_000
BURNS = 2_000
LARGES = 200
LARGE_BYTES = 8 << 20


def square(x):
    return x * x


def burn(units):
    x = units | 1
    for _ in range(units):
        x = (x ^ 12) & 0xFFFF
    return x


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def nothing():
    pass


def clock(work):
    start = time.perf_counter_ns()
    result = work()
    return time.perf_counter_ns() - start, result


def units_for(nanos):
    """How many units take so long where nobody else is in the way."""
    fastest = min(clock(lambda: burn(100_000))[0] for _ in range(5))
    return max(1, int(100_000 * nanos / fastest))


class Standard:
    """`multiprocessing.Pool`."""

    def __init__(self, context, workers=2):
        self.pool = context.Pool(workers)

    def map(self, function, items):
        return self.pool.map(function, items)

    def map_one_by_one(self, function, items):
        return self.pool.map(function, items, chunksize=1)

    def apply(self, function, item):
        return self.pool.apply(function, (item,))

    def start(self, function, item):
        return self.pool.apply_async(function, (item,)).get

    def end(self):
        self.pool.terminate()
        self.pool.join()


class Futures:
    """`concurrent.futures`, and what has the same interface."""

    def __init__(self, make):
        self.make, self.pool = make, make()

    def map(self, function, items):
        return list(self.pool.map(function, items, chunksize=max(1, len(items) // 8)))

    def map_one_by_one(self, function, items):
        return list(self.pool.map(function, items, chunksize=1))

    def apply(self, function, item):
        return self.pool.submit(function, item).result()

    def start(self, function, item):
        return self.pool.submit(function, item).result

    def crash(self):
        try:
            self.apply(die, 0)
        except Exception:
            return
        raise AssertionError("no error")

    def recover(self):
        self.pool = self.make()

    def end(self):
        self.pool.shutdown()


class Joblib(Futures):
    """`joblib.Parallel` for maps, and the loky pool beneath it for calls."""

    def map(self, function, items):
        import joblib

        return joblib.Parallel(n_jobs=2)(joblib.delayed(function)(item) for item in items)

    map_one_by_one = map


class Mpire:
    """`mpire.WorkerPool`."""

    def __init__(self):
        import mpire

        self.pool = mpire.WorkerPool(n_jobs=2, start_method="fork")

    def map(self, function, items):
        return self.pool.map(function, [(item,) for item in items])

    def map_one_by_one(self, function, items):
        return self.pool.map(function, [(item,) for item in items], chunk_size=1)

    def apply(self, function, item):
        return self.pool.apply(function, (item,))

    def start(self, function, item):
        return self.pool.apply_async(function, (item,)).get

    def end(self):
        self.pool.terminate()


class Pebble:
    """`pebble.ProcessPool`."""

    def __init__(self):
        import pebble

        self.pool = pebble.ProcessPool(max_workers=2)

    def map(self, function, items):
        return list(self.pool.map(function, items, chunksize=max(1, len(items) // 8)).result())

    def map_one_by_one(self, function, items):
        return list(self.pool.map(function, items, chunksize=1).result())

    def apply(self, function, item):
        return self.pool.schedule(function, args=(item,)).result()

    def start(self, function, item):
        return self.pool.schedule(function, args=(item,)).result

    def crash(self):
        Futures.crash(self)

    def recover(self):
        pass

    def end(self):
        self.pool.stop()
        self.pool.join()


def make_pool(variant):
    if variant in ("fork", "forkserver"):
        return Standard(multiprocessing.get_context(variant))
    if variant == "futures":
        from concurrent.futures import ProcessPoolExecutor

        return Futures(lambda: ProcessPoolExecutor(2, multiprocessing.get_context("fork")))
    if variant == "joblib":
        from joblib.executor import get_memmapping_executor

        return Joblib(lambda: get_memmapping_executor(2))
    return Mpire() if variant == "mpire" else Pebble()


def pool_answers_twice(variant):
    def start():
        pool = make_pool(variant)
        assert [pool.apply(square, 3), pool.apply(square, 4)] == [9, 16]
        return pool

    nanos, pool = clock(start)
    pool.end()
    return nanos


def quantiles(times):
    times.sort()
    at = {name: times[min(int(len(times) * part), len(times) - 1)] for name, part in
          (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}
    return sum(times) / len(times), at


def private_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


def jobs_of_pools(variant, job):
    if job == "first_pool":
        command = [sys.executable, __file__, variant, "--first-pool"]
        return lambda n: int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    if job == "later_pool":
        return lambda n: pool_answers_twice(variant)
    if job == "burn_units":
        return lambda n: units_for(100_000)
    if job not in ("map_million", "map_100us", "chunk1", "apply", "apply_idle", "map_8mib", "apply_async",
                   "crash", "crash_replaced", "imap_first"):
        return None
    pool = make_pool(variant)
    if job == "map_million":
        def million(n):
            nanos, squares = clock(lambda: pool.map(square, range(MILLION)))
            assert len(squares) == MILLION and squares[-1] == square(MILLION - 1)
            return nanos
        return million
    if job == "map_100us":
        units = int(os.environ.get("PEERS_BURN_UNITS_PYTHON") or units_for(100_000))
        return lambda n: clock(lambda: pool.map(burn, [units] * BURNS))[0]
    if job == "map_8mib":
        def large(n):
            items = [bytes(LARGE_BYTES) for _ in range(LARGES)]
            nanos, lengths = clock(lambda: pool.map(len, items))
            assert lengths == [LARGE_BYTES] * LARGES
            return nanos
        return large
    if job == "chunk1":
        return lambda n: clock(lambda: pool.map_one_by_one(square, range(n)))[0] / n
    if job == "apply":
        return lambda n: quantiles([clock(lambda: pool.apply(square, x))[0] for x in range(n)])
    if job == "apply_idle":
        def idle(n):
            time.sleep(1)
            return clock(lambda: pool.apply(square, 3))[0]
        return idle
    if job == "apply_async":
        def outstanding(n):
            return [get() for get in [pool.start(square, x) for x in range(n)]]
        return lambda n: clock(lambda: outstanding(n))[0] / n
    if job == "imap_first" and variant in ("fork", "forkserver"):
        def first(n):
            nanos, _ = clock(lambda: next(pool.pool.imap(square, range(MILLION))))
            pool.pool.terminate()
            pool.__init__(multiprocessing.get_context(variant))
            pool.apply(square, 3)
            return nanos
        return first
    if job in ("crash", "crash_replaced") and hasattr(pool, "crash"):
        def crash(n):
            assert pool.apply(square, 3) == 9
            told, _ = clock(pool.crash)
            replaced, _ = clock(lambda: (pool.recover(), pool.apply(square, 4)))
            return told if job == "crash" else told + replaced
        return crash
    pool.end()
    return None


def echo(pipe):
    while True:
        pipe.send(pipe.recv() + 1)


def count_numbers(pipe):
    while True:
        for _ in range(pipe.recv()):
            pipe.recv()
        pipe.send(0)


def count_bytes(pipe):
    while True:
        for _ in range(pipe.recv()):
            pipe.recv_bytes()
        pipe.send(0)


def echo_queue(there, back):
    while True:
        back.put(there.get() + 1)


def put_all(queue, go, n):
    go.wait()
    for x in range(n):
        queue.put(x)


def get_all(queue, n):
    for _ in range(n):
        queue.get()


def count_with(lock, start, n):
    start.wait()
    for _ in range(n):
        with lock:
            pass


def meet(barrier, n):
    for _ in range(n):
        barrier.wait()


def attach(pipe):
    while True:
        block = shared_memory.SharedMemory(pipe.recv())
        pipe.send(block.size)
        block.close()


def jobs_of_primitives(variant, job):
    if variant not in ("fork", "forkserver"):
        return None
    context = multiprocessing.get_context(variant)

    def child(function, *arguments):
        process = context.Process(target=function, args=arguments, daemon=True)
        process.start()
        return process

    def spawn(n):
        for _ in range(n):
            process = context.Process(target=nothing)
            process.start()
            process.join()

    def busy_once(workers):
        pool = context.Pool(workers)
        pool.map(square, range(workers * 10), chunksize=1)
        return pool

    def peer(function):
        here, there = context.Pipe()
        child(function, there)
        return here

    if job == "spawn":
        return lambda n: clock(lambda: spawn(n))[0] / n
    if job == "spawn_1gib":
        memory = bytearray(b"1") * (1 << 30)
        return lambda n: clock(lambda: spawn(n))[0] / n + 0 * len(memory)
    if job in ("pipe_rtt", "pipe_rtt_one"):
        pipe = peer(echo)

        def round_trips(n):
            for _ in range(n):
                pipe.send(7)
                pipe.recv()
        return lambda n: clock(lambda: round_trips(n))[0] / n
    if job in ("pipe_u64", "pipe_1k", "pipe_1m"):
        size = {"pipe_u64": 0, "pipe_1k": 1 << 10, "pipe_1m": 1 << 20}[job]
        pipe, message = peer(count_bytes if size else count_numbers), bytes(size)

        def one_way(n):
            pipe.send(n)
            for x in range(n):
                pipe.send_bytes(message) if size else pipe.send(x)
            pipe.recv()
        return lambda n: clock(lambda: one_way(n))[0] / n
    if job in ("queue_11", "queue_22"):
        sides = 1 if job == "queue_11" else 2

        def stream(n):
            queue, go = context.Queue(), context.Event()
            each = -(-n // sides)
            putters = [child(put_all, queue, go, each) for _ in range(sides)]
            getters = [child(get_all, queue, each) for _ in range(sides - 1)]
            time.sleep(0.2)

            def run():
                go.set()
                get_all(queue, each)
                [getter.join() for getter in getters]
            nanos, _ = clock(run)
            [putter.join() for putter in putters]
            return nanos / (each * sides)
        return stream
    if job == "queue_rtt":
        there, back = context.Queue(), context.Queue()
        child(echo_queue, there, back)

        def trips(n):
            for _ in range(n):
                there.put(7)
                back.get()
        return lambda n: clock(lambda: trips(n))[0] / n
    if job == "lock":
        lock = context.Lock()

        def locks(n):
            for _ in range(n):
                with lock:
                    pass
        return lambda n: clock(lambda: locks(n))[0] / n
    if job == "lock_two":
        def two(n):
            lock, start = context.Lock(), context.Barrier(2)
            other = child(count_with, lock, start, n // 2)
            start.wait()

            def run():
                for _ in range(n // 2):
                    with lock:
                        pass
                other.join()
            return clock(run)[0] / n
        return two
    if job == "barrier":
        def two(n):
            barrier = context.Barrier(2)
            child(meet, barrier, n + 1)
            barrier.wait()
            return clock(lambda: meet(barrier, n))[0] / n
        return two
    if job == "slice_over":
        pipe, block = peer(attach), shared_memory.SharedMemory(create=True, size=8 << 20)
        import atexit
        atexit.register(block.unlink)

        def over(n):
            for _ in range(n):
                pipe.send(block.name)
                assert pipe.recv() == 8 << 20
        return lambda n: clock(lambda: over(n))[0] / n
    if job == "idle_worker":
        def idle(n):
            pool = busy_once(20)
            kib = sum(private_kib(worker.pid) for worker in pool._pool) / 20
            pool.terminate()
            return kib
        return idle
    if job == "descriptors":
        def of(workers):
            pool = busy_once(workers)
            count = len(os.listdir("/proc/self/fd"))
            pool.terminate()
            pool.join()
            return count
        return lambda n: (of(22) - of(2)) / 20
    if job == "workers_200":
        def many(n):
            def start():
                pool = context.Pool(200)
                pool.map(square, range(2000), chunksize=1)
                return pool
            nanos, pool = clock(start)
            pool.terminate()
            return nanos
        return many
    return None


def main():
    variant, job = sys.argv[1:3]
    if job == "--first-pool":
        print(pool_answers_twice(variant))
        return
    measure = jobs_of_pools(variant, job) or jobs_of_primitives(variant, job)
    print("ready" if measure else "none", flush=True)
    for line in sys.stdin if measure else ():
        answer = measure(int(line))
        nanos, more = answer if isinstance(answer, tuple) else (answer, {})
        print(nanos, *(f"{key}={value}" for key, value in more.items()), flush=True)
    # Pools of some of these would be waited for, for ever.
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
