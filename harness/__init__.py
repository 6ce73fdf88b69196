"""The `clipkd` command: recipes in, trained and measured CLIP students out."""
