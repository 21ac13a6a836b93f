"""Runs benchmarks and merges what they measure into benchmarks/results/latest.json.

python -m benchmarks                    # all of them, in order of importance
python -m benchmarks decode             # one family
python -m benchmarks step/t5-small      # one model, or one name of --list
python -m benchmarks --small            # toy shapes: does the code work?
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks import results, suite


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 where something could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="names, or the beginning of names up to a slash")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--small", action="store_true", help="toy shapes, into results/small.json")
    parser.add_argument("--minutes", type=float, default=24.0, help="for everything; then it stops")
    parser.add_argument("--out", type=Path, help="another file of results")
    parser.add_argument("--platform", default="", help="cpu, gpu or tpu; JAX's own choice if unset")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    of = suite.this_scale(args.platform, args.small)
    if args.work:
        suite.work(of, args.names)
        return 0
    picked = suite.chosen(of, args.names)
    if args.list:
        for found in picked.values():
            print(*(piece.name for piece in found), sep="\n")
        return 0
    path = args.out or (results.SMALL if args.small else results.LATEST)
    began, names = time.monotonic(), []

    def report(line: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {line}", file=sys.stderr, flush=True)

    def keep(record: dict) -> None:
        results.merge(path, record)
        names.append(record["name"])

    try:
        problems = suite.run(of, picked, keep, report, 60 * args.minutes)
    except KeyboardInterrupt:
        problems = [suite.Problem("the rest", "interrupted")]
    results.show([one for one in results.read(path) if one["name"] in names])
    for problem in problems:
        print(f"not measured: {problem.name}: {problem.why}")
    report(f"{len(names)} results in {path}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
