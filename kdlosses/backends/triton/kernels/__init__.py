"""The jit functions. Letters: R rows and C columns of a tile of logits, D width; a program owns BM x BN of the tile."""
