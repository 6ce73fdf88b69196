"""The `clipkd` command: trains CLIP students from recipes and evaluates them."""
