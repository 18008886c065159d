"""Every measurement, one after the other; each prints ratios of what ran side by side.

    python -m benchmarks [serving ingest crawl exports recommender gateway workers]

Each is a module with options of its own: python -m benchmarks.serving --help.
"""

import argparse
import subprocess
import sys

ALL = ("serving", "ingest", "crawl", "exports", "recommender", "gateway", "workers")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; all by default")
    names = parser.parse_args().names or ALL
    if unknown := set(names) - set(ALL):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    codes = []
    for name in names:
        print(f"\n=== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
