"""Losses over several processes: N of them with B/N rows each compute what one computes for all B rows.

Each process computes its own rows against everybody's keys. ``distribution`` says what a call needs of the others,
``sharded`` turns requests about all rows into requests about these, ``columns`` moves rows and gradients,
``agreement`` makes sure beforehand that all processes ask the same, ``parameters`` keeps the losses' own parameters
equal, ``shard`` says who belongs together. Public collectives alone, by the names in ``collectives``.

The contract: every process returns the value for all B rows, with the gradient of its own rows' mean. Summed over the
processes by the backward pass of the gathering and divided by N as DistributedDataParallel does it, that is the
gradient for all B rows.
"""
