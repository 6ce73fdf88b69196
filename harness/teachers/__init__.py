"""Teachers that are not run in training: their embeddings are computed once, written down, and looked up."""
