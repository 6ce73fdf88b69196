"""Messages of the watchdog: a stall in one sentence, with rank and phase, the likely cause, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.watchdog.heartbeat import ENDED, Heartbeat, Peers
from harness.watchdog.worker_processes import DEAD, DISK, STOPPED, WorkerProcess

# Of many ranks or files the first few tell enough.
SHOWN = 4
_DOING = {
    "start": "has been getting ready for {span}",
    "data": "has waited {span} for the next batch at step {step}",
    "step": "has been computing step {step} for {span}",
    "exchange": "has waited {span} for the other ranks at step {step}",
    "checkpoint": "has been writing the checkpoint of step {step} for {span}",
    "evaluation": "has been evaluating after step {step} for {span}",
}
_AT = {
    "start": "before the first step",
    "data": "while it loads the batch of step {step}",
    "step": "in step {step}",
    "exchange": "before step {step}",
    "checkpoint": "in the checkpoint of step {step}",
    "evaluation": "in the evaluation after step {step}",
}
# Where a rank of a step may well be when another waits for it at the same step.
_WITHIN = ("step", "exchange")


def format_duration(seconds: float) -> str:
    """A duration: `0.4 s`, `300 s`, `25 min`."""
    if seconds >= 600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def describe_phase(phase: str, step: int, detail: str, seconds: float) -> str:
    """What a rank has been doing, and for how long."""
    text = _DOING.get(phase, f"has been in phase {phase} of step {{step}} for {{span}}")
    return text.format(span=format_duration(seconds), step=step) + (f" ({detail})" if detail else "")


def describe_position(phase: str, step: int) -> str:
    """Where the loop is: `in step 3`."""
    return _AT.get(phase, "after step {step}").format(step=step)


def about_self(pid: int, host: str) -> str:
    """How to see where this process hangs."""
    return f"`py-spy dump --pid {pid}` on {host} shows where it is"


def about_folder(folder: Path, seconds: float) -> str:
    """The run folder's file system does not accept writes."""
    return (
        f"its heartbeat could not be written for {format_duration(seconds)} either: check the file system of {folder}"
    )


def about_data(workers: Sequence[WorkerProcess], reads: Sequence[str]) -> str:
    """Who loads and from where, and what to do.

    Args:
        workers: the processes that load; none when the training process loads itself.
        reads: the files that the training process has open.
    """
    # Only the first few are shown: what is not plainly alive tells most, then who reads what.
    telling = sorted(workers, key=lambda worker: (worker.state not in (DEAD, STOPPED, DISK), not worker.reads))
    known = [f"pid {worker.pid} is {worker.state}{_reading(worker.reads)}" for worker in telling]
    facts = [f"of the data workers {_some(known)}"] if known else []
    facts += [f"the process itself{_reading(reads)}"] if reads else []
    return "; ".join([*facts, _advice(workers)])


def about_peers(peers: Peers, own: Heartbeat, silent: float) -> str | None:
    """Which ranks hold this one up, and what to do; None when no other rank does.

    Args:
        peers: the other ranks with their last heartbeats.
        own: this rank's, as of now.
        silent: seconds without a heartbeat after which a rank counts as silent.
    """
    late = [(rank, beat) for rank, beat in peers if beat is None or _is_late(beat, own, silent)]
    if not late:
        stuck = (
            "all other ranks are alive and at the same step: the network between them or the collective library is "
            "stuck; a run with NCCL_DEBUG=INFO (gloo: TORCH_DISTRIBUTED_DEBUG=DETAIL) shows where"
        )
        return stuck if own.phase == "exchange" and peers else None
    named = _some([_peer(rank, beat, own.time, silent) for rank, beat in late])
    first = next((beat for _, beat in late if beat is not None and beat.phase != ENDED), None)
    where = f", `py-spy dump --pid {first.pid}` on {first.host} shows where it is" if first else ""
    return f"{named}; look at the log and the machine of {_ranks(late)} first{where}"


def _is_late(beat: Heartbeat, own: Heartbeat, silent: float) -> bool:
    if beat.phase == ENDED or own.time - beat.time > silent or beat.step < own.step:
        return True
    if beat.step == own.step and beat.phase in _WITHIN:
        # Within a step ranks wait for each other too, in the losses and in the backward pass.
        return own.waits and bool(beat.place) and not beat.waits
    return beat.step == own.step and beat.phase != own.phase


def _peer(rank: int, beat: Heartbeat | None, now: float, silent: float) -> str:
    if beat is None:
        return f"rank {rank} has written no heartbeat: it never started"
    who = f"rank {rank} on host {beat.host}"
    detail = f" ({beat.detail})" if beat.detail else ""
    if beat.phase == ENDED:
        return f"{who} ended {format_duration(now - beat.time)} ago at step {beat.step}{detail}"
    if now - beat.time > silent:
        return (
            f"{who} last beat {format_duration(now - beat.time)} ago at step {beat.step} in phase {beat.phase}{detail}"
        )
    at = f" at {beat.place}" if beat.phase == "step" and beat.place and not beat.waits else ""
    return f"{who} {describe_phase(beat.phase, beat.step, beat.detail, now - beat.since)}{at}"


def _ranks(late: Peers) -> str:
    return f"rank {late[0][0]}" if len(late) == 1 else "these ranks"


def _advice(workers: Sequence[WorkerProcess]) -> str:
    by_state = {worker.state: worker.pid for worker in reversed(workers)}
    if DEAD in by_state:
        return (
            f"data worker {by_state[DEAD]} has died, perhaps for lack of memory: start again with fewer data.workers "
            "(the kernel's log names what it killed)"
        )
    if STOPPED in by_state:
        return f"data worker {by_state[STOPPED]} is stopped: `kill -CONT {by_state[STOPPED]}` lets it go on"
    if DISK in by_state:
        return "the disk or network file system does not answer: check it, then start again"
    whom = f"`py-spy dump --pid {workers[0].pid}`" if workers else "`py-spy dump`"
    return f"check the disk or network that the data comes from; {whom} shows where loading is"


def _reading(files: Sequence[str]) -> str:
    return f" with {_some(list(files[-SHOWN:]))} open" if files else ""


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
