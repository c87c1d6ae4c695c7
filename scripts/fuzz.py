"""Damaged and random bytes for everything that decodes what another device sent.

Ends with 0 if nothing but the protocol's own errors came up and memory stayed within bounds. What
was found is written to a file, and the same seed finds it again.
"""

import argparse
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.fuzzing import Target, damaged, targets

_LOOK_EVERY = 10_000
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20
_MAY_GROW_MIB = 64


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / _MIB


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000, metavar="N", help="how many in all")
    parser.add_argument("--seed", type=int, default=1, help="of chance; the same gives the same")
    parser.add_argument("--target", help="only this one; their names are in the summary")
    parser.add_argument("--guided", action="store_true", help="led by coverage; needs atheris")
    return parser.parse_args(arguments)


def _tell_find(target: Target, data: bytes) -> None:
    path = Path(f"fuzz-find-{target.name.replace(' ', '-')}.bin")
    path.write_bytes(data)
    traceback.print_exc()
    print(f"FOUND: “{target.name}” failed at {len(data)} bytes, kept in {path}.", flush=True)


def _run(chosen: list[Target], frames: int, seed: int) -> int:
    chance = random.Random(seed)
    tried: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    finds = 0
    before = highest = _resident_mib()
    began = time.monotonic()
    for number in range(frames):
        target = chosen[number % len(chosen)]
        data = damaged(chance, target.seeds)
        tried[target.name] += 1
        try:
            taken[target.name] += target.take(data)
        except Exception:
            finds += 1
            _tell_find(target, data)
        if number % _LOOK_EVERY == 0:
            highest = max(highest, _resident_mib())
    seconds = time.monotonic() - began
    for target in chosen:
        name = target.name
        print(f"{name:>17}: {tried[name]:>9} tried, {taken[name]:>9} accepted")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{frames} frames with seed {seed} in {seconds:.0f} s ({frames / seconds:.0f} a second), "
        f"{finds} finds; resident memory {before:.0f} MiB at the start, {highest:.0f} MiB at most "
        f"while looking, {peak:.0f} MiB at its peak."
    )
    if peak > before + _MAY_GROW_MIB:
        print(f"FOUND: memory grew by more than {_MAY_GROW_MIB} MiB.")
        finds += 1
    return 1 if finds else 0


def _run_guided(chosen: list[Target], frames: int, seed: int) -> int:
    """Coverage of our Python code leads; an input's first byte says for which target it is."""
    try:
        import atheris
    except ImportError:
        print(
            "p2psync: --guided needs atheris, which is not installed; install it with "
            "`.venv/bin/python -m pip install atheris`, then run the command again.",
            file=sys.stderr,
        )
        return 1

    def take(data: bytes) -> None:
        if data:
            chosen[data[0] % len(chosen)].take(data[1:])

    corpus = Path(".fuzz-corpus")
    corpus.mkdir(exist_ok=True)
    for index, target in enumerate(chosen):
        for number, data in enumerate(target.seeds):
            (corpus / f"{target.name.replace(' ', '-')}-{number}").write_bytes(
                bytes([index]) + data
            )
    atheris.instrument_all()
    limits = ["-max_len=4096", "-rss_limit_mb=512", "-artifact_prefix=fuzz-find-"]
    atheris.Setup(["scripts/fuzz", f"-runs={frames}", f"-seed={seed}", *limits, str(corpus)], take)
    atheris.Fuzz()
    return 0


def main() -> int:
    options = _options(sys.argv[1:])
    every = targets()
    chosen = [target for target in every if options.target in (None, target.name)]
    if not chosen or options.frames < 1:
        names = ", ".join(target.name for target in every)
        print(f"p2psync: nothing to do; the targets are: {names}.", file=sys.stderr)
        return 2
    run = _run_guided if options.guided else _run
    return run(chosen, options.frames, options.seed)


if __name__ == "__main__":
    sys.exit(main())
