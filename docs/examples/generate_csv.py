#!/usr/bin/env python3
"""Writes a CSV of any size to standard output, to try Ridgeline with.

The columns are y, x1, .. xN. The features are uniform between -1 and 1, and

    y = 1 + x1 + x2/2 + x3/3 + .. + xN/N + noise

so a model with the target y should find the intercept 1 and the coefficients 1, 1/2, 1/3, ..

The same arguments give the same bytes, on any machine and any Python from 3.7 on; with fewer rows they
give the beginning of the same file. One row at a time is held in memory.
"""

import argparse
import math
import os
import random
import sys


def main():
    arguments = parse_arguments()
    # On every system alike.
    sys.stdout.reconfigure(encoding="ascii", newline="\n")
    try:
        for line in csv_lines(arguments.rows, arguments.columns, arguments.seed, arguments.noise):
            sys.stdout.write(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has had enough, as `head` does. Python would flush once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", metavar="ROWS", type=whole_number, help="rows below the header")
    parser.add_argument("columns", metavar="COLUMNS", type=whole_number, help="features, that is N; at least 1")
    parser.add_argument(
        "--seed", metavar="S", type=whole_number, default=0, help="another seed, other rows (default: 0)"
    )
    parser.add_argument(
        "--noise", metavar="X", type=deviation, default=0.1, help="standard deviation of the noise (default: 0.1)"
    )
    arguments = parser.parse_args()
    if arguments.columns == 0:
        parser.error("argument COLUMNS: must be at least 1")
    return arguments


def whole_number(text):
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, but is {number}")
    return number


def deviation(text):
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, but is {text}")
    return number


# A type's name stands in argparse's messages.
whole_number.__name__ = "whole number"
deviation.__name__ = "number"


def csv_lines(n_rows, n_columns, seed, noise):
    """The lines of the file, the header first.

    Only random() is promised to give the same numbers in all versions of Python, and only the basic operations and
    fsum() the same bits on all machines: hence no gauss() and no sum().
    """
    draw = random.Random(seed).random
    yield ",".join(["y", *(f"x{column}" for column in range(1, n_columns + 1))]) + "\n"
    for _ in range(n_rows):
        # Rounded before y is computed, so that what is written is what y depends on.
        x = [round(2 * draw() - 1, 6) for _ in range(n_columns)]
        # The sum of twelve uniform numbers has variance 1 and is close to normal.
        deviate = math.fsum(draw() for _ in range(12)) - 6
        terms = (value / column for column, value in enumerate(x, start=1))
        y = math.fsum([1, *terms, noise * deviate])
        yield ",".join(map(repr, [y, *x])) + "\n"


if __name__ == "__main__":
    main()
