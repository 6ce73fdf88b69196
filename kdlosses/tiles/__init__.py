"""The mathematics that backends share: everything about a softmax over rows or columns of a matrix that is never whole.

``program`` sorts requests into jobs, ``statistics`` holds the running softmax, ``coefficients`` the closed-form
derivatives, ``function`` ties them to autograd. ``walk`` and ``second_order`` go over tiles in plain torch; a backend
with kernels of its own replaces those two and nothing else.
"""
