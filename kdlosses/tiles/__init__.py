"""The mathematics that backends share: softmaxes over rows or columns, and sigmoids, of a matrix that is never whole.

``program`` sorts requests into jobs, ``statistics`` holds the running softmax, ``coefficients`` the closed-form
derivatives, ``function`` ties them to autograd. ``walk``, ``second_order`` and ``sigmoid`` go over tiles in plain
torch; a backend with kernels of its own replaces those three and nothing else.
"""
