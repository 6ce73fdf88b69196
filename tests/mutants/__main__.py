"""Try every mutant of the list against a tier of the tests: `make mutants ARGS="--tier full"`.

Safe to interrupt: run it again to resume. The results are lines of `.mutants/TIER.jsonl`; a mutant is tried again when
its file has changed, and with --again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.mutants.mutant import ROOT, Mutant, read, relocate, write
from tests.mutants.worker import TIERS, attempt, copy_checkout, failing_without_mutant, warm_up


def main() -> int:
    args = _arguments()
    if args.relocate:
        problems = relocate()
        print("\n".join(problems) or "every mutant is in its line")
        return bool(problems)
    mutants = [mutant for mutant in read() if args.only in mutant.name]
    store = Path(args.out) / f"{args.tier}.jsonl"
    done = {} if args.again else _stored(store)
    waiting = [mutant for mutant in mutants if _identity(mutant) not in done]
    if args.survivors:
        waiting = [
            mutant for mutant in mutants if done.get(_identity(mutant), {}).get("outcome") in ("survived", "timed out")
        ]
    print(f"{len(mutants)} mutants, {len(mutants) - len(waiting)} tried before, tier {args.tier}", flush=True)
    _try_all(waiting, args, store)
    _check_killers(store)
    if args.remember:
        results = _stored(store)
        write([replace(mutant, tests=_killers(results.get(_identity(mutant)), mutant)) for mutant in read()])
    return _summary(mutants, _stored(store), args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--tier", choices=TIERS, default="fast")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="workers, one a core")
    parser.add_argument("--only", default="", help="mutants whose name holds this text")
    parser.add_argument("--again", action="store_true", help="try those with a result again too")
    parser.add_argument("--survivors", action="store_true", help="try only those again that survived")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for one mutant, which is then not killed")
    parser.add_argument("--remember", action="store_true", help="write the killers into the list, to be tried first")
    parser.add_argument("--out", default=str(ROOT / ".mutants"), help="folder of the results")
    parser.add_argument("--at-least", type=float, help="exit 1 when a smaller percentage is killed")
    parser.add_argument("--relocate", action="store_true", help="only update the line numbers of the list")
    return parser.parse_args()


def _try_all(mutants: list[Mutant], args: argparse.Namespace, store: Path) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    for mutant in [*mutants, *[None] * args.jobs]:
        queue.put(mutant)
    workers = [fork.Process(target=_work, args=(queue, args, store)) for _ in range(args.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _work(queue: multiprocessing.Queue[Mutant | None], args: argparse.Namespace, store: Path) -> None:
    warm_up()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_checkout(Path(folder))
        while (mutant := queue.get()) is not None:
            result = attempt(mutant, args.tier, Path(folder), args.limit)
            line = json.dumps({"mutant": mutant.name, "id": _identity(mutant), **result})
            with store.open("a", encoding="utf-8") as file:  # one write of one line: whole, whoever else writes
                file.write(line + "\n")
            print(f"{result['outcome']:9} {result['seconds']:6.1f} s  {mutant.name}  {result['by']}", flush=True)


def _check_killers(store: Path) -> None:
    """Take back what was killed by a test that fails without a mutant too."""
    results = _stored(store)
    tests = sorted({row["by"] for row in results.values() if row["outcome"] == "killed"})
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_checkout(Path(folder))
        failing = failing_without_mutant(tests, Path(folder))
    for row in results.values():
        if row["by"] in failing:
            print(f"{row['by']} fails without a mutant too", flush=True)
            row.update(outcome="survived", by="")
    store.write_text("".join(json.dumps(row) + "\n" for row in results.values()), encoding="utf-8")


def _killers(result: dict[str, str] | None, mutant: Mutant) -> tuple[str, ...]:
    known = result is not None and result["outcome"] == "killed" and "::" in result["by"]
    return (result["by"],) if known else mutant.tests


def _identity(mutant: Mutant) -> str:
    content = (ROOT / mutant.file).read_bytes()
    return hashlib.sha256(mutant.key.encode() + content).hexdigest()[:16]


def _stored(store: Path) -> dict[str, dict[str, str]]:
    if not store.is_file():
        return {}
    rows = (json.loads(line) for line in store.read_text(encoding="utf-8").splitlines() if line.endswith("}"))
    return {row["id"]: row for row in rows}


def _summary(mutants: list[Mutant], results: dict[str, dict[str, str]], args: argparse.Namespace) -> int:
    outcomes = {mutant: results[_identity(mutant)]["outcome"] for mutant in mutants if _identity(mutant) in results}
    survivors = [mutant for mutant, outcome in outcomes.items() if outcome != "killed"]
    killed = len(outcomes) - len(survivors)
    share = 100 * killed / max(len(outcomes), 1)
    for mutant in survivors:
        print(f"{outcomes[mutant]}: {mutant.name} ({mutant.why})")
    print(f"tier {args.tier}: {killed} of {len(outcomes)} mutants killed, {share:.1f} %")
    return args.at_least is not None and share < args.at_least


if __name__ == "__main__":
    sys.exit(main())
