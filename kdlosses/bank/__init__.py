"""Keys that are no batch: queues of past teacher embeddings, centroids, support sets; K of them, constant.

``state`` is what a loss keeps between calls, ``requests`` what is asked about it, ``softmax`` the arithmetic.
"""
