"""`vitrail` with small shards, which kills itself in the middle of a write: `python killed_program.py WRITE RANK ARGUMENTS`.

WRITE counts the files that the process of this rank writes, from 1; the last one stays half-written. 0 is for a program that is not killed.
"""

import os
import signal
import sys
from pathlib import Path


def kill_at(write: int) -> None:
    """Kill this process with SIGKILL just before it finishes its file number `write`."""
    replace, count = Path.replace, 0

    def replace_or_die(path: Path, target: str | Path) -> Path:
        nonlocal count
        count += 1
        if count == write:
            path.write_bytes(path.read_bytes()[:-1])
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    Path.replace = replace_or_die  # type: ignore[method-assign]


def main() -> None:
    """Run the command line with shards of two images."""
    from vitrail.cli.main import main as vitrail
    from vitrail.runs import explain_folder, query_photos

    explain_folder.IMAGES_PER_SHARD = query_photos.PER_SHARD = 2
    write, rank, *sys.argv[1:] = sys.argv[1:]
    if int(write) and os.environ.get("RANK", "0") == rank:
        kill_at(int(write))
    vitrail()


if __name__ == "__main__":
    main()
