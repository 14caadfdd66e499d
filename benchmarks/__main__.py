"""``python -m benchmarks [inprocess|wire|memory]``: measure, and print tables."""

import argparse

from . import inprocess


def main() -> None:
    """Read the command line and measure what it says."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "kinds",
        nargs="*",
        metavar="KIND",
        help="inprocess, wire, memory; all of them if none is given",
    )
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--only", default="", help="jobs, with commas between")
    parser.add_argument("--quick", action="store_true", help="be done in a minute")
    args = parser.parse_args()
    only = set(filter(None, args.only.split(",")))
    inprocess.run(only, args.rounds or (3 if args.quick else 30), args.quick)


if __name__ == "__main__":
    main()
