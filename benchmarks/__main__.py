"""Measure asyncflask and its peers, and print Markdown tables."""

import argparse
import contextlib

from . import inprocess, memory, wire

KINDS = ["inprocess", "wire", "memory"]


def main() -> None:
    """Read the command line and measure what it says."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--rounds", type=int, help="how often to measure everything")
    parser.add_argument("--only", default="", help="jobs, with commas between them")
    parser.add_argument("--quick", action="store_true", help="be done in a minute")
    parser.add_argument(
        "--full", action="store_true", help="upload 1 GB, too; have 10,000 idle clients"
    )
    parser.add_argument(
        "--spread", action="store_true", help="in process: use more than one core"
    )
    args = parser.parse_args()
    kinds = args.kinds or KINDS
    for kind in kinds:
        if kind not in KINDS:
            parser.error(f"{kind!r} is none of {', '.join(KINDS)}")

    only = set(filter(None, args.only.split(",")))
    jobs = {job.name for job in inprocess.JOBS} | {job.name for job in wire.JOBS}
    jobs |= set(memory.JOBS)
    if only - jobs:
        parser.error(f"no such job: {', '.join(only - jobs)}; there are {sorted(jobs)}")

    if "inprocess" in kinds:
        rounds = args.rounds or (1 if args.quick else 30)
        with contextlib.nullcontext() if args.spread else inprocess.one_core():
            inprocess.run(only, rounds, args.quick)
    if "wire" in kinds:
        wire.run(only, args.rounds or (1 if args.quick else 7), args.quick)
    if "memory" in kinds:
        rounds = args.rounds or (1 if args.quick else 10)
        memory.run(only, rounds, args.quick, args.full)


if __name__ == "__main__":
    main()
