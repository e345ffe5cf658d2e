"""Several processes of a run as threads of the test."""

import threading


class Together:
    """Processes as threads, for modules that import `rank`, `world_size` and `gather`: each has a rank, and `gather` waits for all."""

    def __init__(self, count, monkeypatch, *modules):
        self.count, self.own = count, threading.local()
        self.barrier, self.sent = threading.Barrier(count, timeout=60), [None] * count
        for module in modules:
            replacements = {"rank": lambda: self.own.rank, "world_size": lambda: count, "gather": self.gather}
            for name, replacement in replacements.items():
                monkeypatch.setattr(module, name, replacement, raising=False)

    def gather(self, items):
        self.barrier.wait()
        self.sent[self.own.rank] = list(items)
        self.barrier.wait()
        found = [item for some in self.sent for item in some]
        self.barrier.wait()
        return found

    def run(self, function):
        """What `function(rank)` returns or raises in every process."""
        results = [None] * self.count

        def process(rank):
            self.own.rank = rank
            try:
                results[rank] = function(rank)
            except Exception as error:  # noqa: BLE001 (looked at by the test)
                results[rank] = error
                self.barrier.abort()

        threads = [threading.Thread(target=process, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results
