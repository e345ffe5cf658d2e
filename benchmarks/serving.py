"""Load test of the web page: many clients for a minute, then many requests in sequence.

Every response is compared to the library's result; wrong and failed ones are counted and lead to exit code 1. Latencies are from a
client's request to its full response, upload included. Memory is the resident set of the server process after warm-up requests, which
load the model and fill caches.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gradio_client import Client, handle_file

from vitrail.adapters import Classifier, load
from vitrail.app.explain_request import ExplainRequest, answer_request
from vitrail.datasets.image_io import open_image
from vitrail.datasets.synthetic.birds import Birds

MODEL, METHOD = "vitrail:hit-cifar10", "hit"
NUM_PHOTOS, WARM_UP = 12, 50


class Query(NamedTuple):
    """A photo, a class, and the expected map."""

    path: Path
    target: int
    relevance: np.ndarray


def create_queries(folder: Path, classifier: Classifier) -> list[Query]:
    """Create queries with different photos and classes, so that mixed-up responses are noticed."""
    task, queries = Birds(size=96, num_classes=6), list[Query]()
    for index in range(NUM_PHOTOS):
        path, target = folder / f"{index}.png", index % classifier.num_classes
        task.draw("test", index).image.save(path)
        result = answer_request(classifier, ExplainRequest(open_image(path), (METHOD,), str(target)))
        queries.append(Query(path, target, result.explanations[METHOD].relevance[0].numpy()))
    return queries


def send_query(client: Any, query: Query) -> tuple[float, str]:
    """Send a query; return the seconds it took and its outcome: right, wrong or failed."""
    start = time.perf_counter()
    try:
        response = client.predict(
            photo=handle_file(query.path), model=MODEL, methods=[METHOD], target=str(query.target), api_name="/explain"
        )
    except Exception as error:  # noqa: BLE001 (any error counts as failed)
        print(f"failed: {error}", file=sys.stderr)
        return time.perf_counter() - start, "failed"
    seconds = time.perf_counter() - start
    right = np.allclose(response["maps"][0]["relevance"], query.relevance, rtol=1e-3, atol=1e-5)
    return seconds, "right" if right else "wrong"


def measure_load(url: str, queries: Sequence[Query], num_clients: int, seconds: float) -> dict[str, Any]:
    """Measure several clients at once, each of which sends a query as soon as it has the response to the last one."""
    clients = [Client(url, verbose=False) for _ in range(num_clients)]
    end = time.monotonic() + seconds

    def run_client(number: int) -> list[tuple[float, str]]:
        responses = list[tuple[float, str]]()
        while time.monotonic() < end:
            responses.append(send_query(clients[number], queries[(number + len(responses)) % len(queries)]))
        return responses

    with ThreadPoolExecutor(num_clients) as pool:
        responses = [response for client in pool.map(run_client, range(num_clients)) for response in client]
    times, outcomes = zip(*responses, strict=True)
    return {
        "clients": num_clients,
        "answers": len(responses),
        "per_second": len(responses) / seconds,
        "p50": float(np.percentile(times, 50)),
        "p95": float(np.percentile(times, 95)),
        "wrong": outcomes.count("wrong"),
        "failed": outcomes.count("failed"),
    }


def read_resident_memory(process: int) -> float:
    """Read the resident memory of a process in MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def main() -> None:
    """Print the results and optionally write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--port", type=int, default=7899)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        queries = create_queries(Path(name), load(MODEL, device="cpu"))
        command = [sys.executable, "-m", "vitrail", "serve", "--model", MODEL, "--port", str(arguments.port)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            line = server.stdout.readline() if server.stdout else ""
            url = re.findall(r"http://\S+", line)[0]
            client = Client(url, verbose=False)
            for i in range(WARM_UP):
                send_query(client, queries[i % len(queries)])
            rows = [measure_load(url, queries, count, arguments.seconds) for count in (1, arguments.clients)]
            memory, outcomes = [read_resident_memory(server.pid)], list[str]()
            for i in range(arguments.requests):
                outcomes.append(send_query(client, queries[i % len(queries)])[1])
                if (i + 1) % 100 == 0:
                    memory.append(read_resident_memory(server.pid))
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    for row in rows:
        print(
            f"{row['clients']:>3} clients: {row['answers']} responses, {row['per_second']:.1f} per second, p50 {row['p50']:.3f} s, "
            f"p95 {row['p95']:.3f} s, wrong {row['wrong']}, failed {row['failed']}"
        )
    print(f"memory over {arguments.requests} requests, MiB: {', '.join(f'{value:.0f}' for value in memory)}")
    print(f"wrong or failed among them: {len(outcomes) - outcomes.count('right')}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"load": rows, "memory": memory}, indent=2), encoding="utf-8")
    if any(row["wrong"] or row["failed"] for row in rows) or outcomes.count("right") < len(outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
