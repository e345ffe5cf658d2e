"""The web page under load: many clients for a minute, then very many requests one after the other.

Every answer is compared with the library's own: a wrong or a lost one is counted, and ends in exit code 1. Latencies are from a client's
question to its whole answer, the upload included. Memory is the resident set of the server's process; the first requests, which
load the model and fill caches, are left out of its growth.
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
from vitrail.app.explain_request import ExplainRequest, answer
from vitrail.datasets.image_io import open_image
from vitrail.datasets.synthetic.birds import Birds

MODEL, METHOD = "vitrail:hit-cifar10", "hit"
NUM_PHOTOS, WARM_UP = 12, 50


class Question(NamedTuple):
    """A photo, a class, and the map that is the right answer."""

    path: Path
    target: int
    relevance: np.ndarray


def questions(folder: Path, classifier: Classifier) -> list[Question]:
    """Different photos and classes, so that an answer to another question is seen to be wrong."""
    task, found = Birds(size=96, num_classes=6), list[Question]()
    for index in range(NUM_PHOTOS):
        path, target = folder / f"{index}.png", index % classifier.num_classes
        task.draw("test", index).image.save(path)
        one = answer(classifier, ExplainRequest(open_image(path), (METHOD,), str(target)))
        found.append(Question(path, target, one.explanations[METHOD].relevance[0].numpy()))
    return found


def ask(client: Any, question: Question) -> tuple[float, str]:
    """Seconds, and what became of it: right, wrong or lost."""
    start = time.perf_counter()
    try:
        found = client.predict(
            photo=handle_file(question.path), model=MODEL, methods=[METHOD], target=str(question.target), api_name="/explain"
        )
    except Exception as error:  # noqa: BLE001 (whatever it is, the answer is lost)
        print(f"lost: {error}", file=sys.stderr)
        return time.perf_counter() - start, "lost"
    seconds = time.perf_counter() - start
    right = np.allclose(found["maps"][0]["relevance"], question.relevance, rtol=1e-3, atol=1e-5)
    return seconds, "right" if right else "wrong"


def under_load(url: str, asked: Sequence[Question], num_clients: int, seconds: float) -> dict[str, Any]:
    """So many clients at once, each with its next question as soon as the last one is answered."""
    clients = [Client(url, verbose=False) for _ in range(num_clients)]
    end = time.monotonic() + seconds

    def visit(number: int) -> list[tuple[float, str]]:
        found = list[tuple[float, str]]()
        while time.monotonic() < end:
            found.append(ask(clients[number], asked[(number + len(found)) % len(asked)]))
        return found

    with ThreadPoolExecutor(num_clients) as pool:
        found = [one for each in pool.map(visit, range(num_clients)) for one in each]
    times, ends = [one for one, _ in found], [one for _, one in found]
    return {
        "clients": num_clients,
        "answers": len(found),
        "per_second": len(found) / seconds,
        "p50": float(np.percentile(times, 50)),
        "p95": float(np.percentile(times, 95)),
        "wrong": ends.count("wrong"),
        "lost": ends.count("lost"),
    }


def resident(process: int) -> float:
    """Resident memory of a process, in MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--clients", type=int, default=16)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--requests", type=int, default=500)
    options.add_argument("--port", type=int, default=7899)
    options.add_argument("--json", type=Path, help="write the figures there as well")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        asked = questions(Path(name), load(MODEL, device="cpu"))
        command = [sys.executable, "-m", "vitrail", "serve", "--model", MODEL, "--port", str(chosen.port)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            line = server.stdout.readline() if server.stdout else ""
            url = re.findall(r"http://\S+", line)[0]
            client = Client(url, verbose=False)
            for i in range(WARM_UP):
                ask(client, asked[i % len(asked)])
            rows = [under_load(url, asked, count, chosen.seconds) for count in (1, chosen.clients)]
            memory, ends = [resident(server.pid)], list[str]()
            for i in range(chosen.requests):
                ends.append(ask(client, asked[i % len(asked)])[1])
                if (i + 1) % 100 == 0:
                    memory.append(resident(server.pid))
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    for row in rows:
        print(
            f"{row['clients']:>3} clients: {row['answers']} answers, {row['per_second']:.1f} a second, p50 {row['p50']:.3f} s, "
            f"p95 {row['p95']:.3f} s, wrong {row['wrong']}, lost {row['lost']}"
        )
    print(f"memory over {chosen.requests} requests, MiB: {', '.join(f'{each:.0f}' for each in memory)}")
    print(f"wrong or lost among them: {len(ends) - ends.count('right')}")
    if chosen.json:
        chosen.json.write_text(json.dumps({"load": rows, "memory": memory}, indent=2), encoding="utf-8")
    if any(row["wrong"] or row["lost"] for row in rows) or ends.count("right") < len(ends):
        sys.exit(1)


if __name__ == "__main__":
    main()
