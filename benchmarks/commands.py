"""The five commands of docs/tables.md on each table of `$SUBO_DATA/tables`, which is given as it is.

fit, impute with 20 draws, score, 1,000 samples, and a fit with a condition with rows sampled from it: seconds of the
clock and of the processor of each, as a shell sees them. How each column is described, the settings of training,
threads and numbers of samples are what the commands decide.

    python benchmarks/commands.py --out /tmp/commands
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

CONDITIONS = {
    "airquality": ("Month", "5"),
    "ames": ("MS_Zoning", "Residential_Low_Density"),
    "attrition": ("Attrition", "Yes"),
    "credit_data": ("Status", "bad"),
    "flights": ("carrier", "AA"),
    "hotel_rates": ("meal", "bed_and_breakfast"),
    "penguins_raw": ("Species", "Adelie Penguin (Pygoscelis adeliae)"),
}
NAMES = ("fit", "impute", "score", "sample", "fit by", "sample by")


def commands_on(table: str, file: Path, out: Path) -> list[list[str]]:
    """The command lines, in the order of `NAMES`."""
    column, value = CONDITIONS[table]
    run, by = str(out / table), str(out / f"{table}-by")
    return [
        ["fit", str(file), "--out", run, "--overwrite"],
        ["impute", run, str(file), "--draws", "20", "--out", f"{run}-filled.csv"],
        ["score", run, str(file), "--out", f"{run}-scores.csv"],
        ["sample", run, "-n", "1000", "--out", f"{run}-synthetic.csv"],
        ["fit", str(file), "--condition", column, "--out", by, "--overwrite"],
        ["sample", by, "--given", f"{column}={value}", "-n", "100", "--out", f"{run}-some.csv"],
    ]


def seconds_of(command: list[str], log: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor; what was printed is kept in a file."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("w") as printed:
        done = subprocess.run([sys.executable, "-m", "subo", *command], stdout=printed, stderr=subprocess.STDOUT)
    taken, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"subo {' '.join(command)} exited with {done.returncode}; see {log}")
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tables = Path(os.environ["SUBO_DATA"], "tables")
    print("seconds of the clock (of the processor)")
    print(f"{'':13s}" + "".join(f"{name:>13s}" for name in NAMES), flush=True)
    for table in arguments.tables:
        print(f"{table:13s}", end="", flush=True)
        for name, command in zip(NAMES, commands_on(table, tables / f"{table}.csv.gz", arguments.out), strict=True):
            clock, processor = seconds_of(command, arguments.out / f"{table}.{name.replace(' ', '-')}.log")
            print(f"{f'{clock:.0f} ({processor:.0f})':>13s}", end="", flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
