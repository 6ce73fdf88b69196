"""Studies: many variants of one recipe, trained over several seeds, ranked, and compared with a paper's numbers."""
