"""`clipkd bench losses`: speed and memory of every loss on every backend, beside other people's code.

A case is one loss, computed by one implementation (a backend of ours, or a baseline), at one size. Each is compared
with one B x D x B matrix product of the same dtype on the same device in the same run, so that numbers of different
machines can be compared.
"""
