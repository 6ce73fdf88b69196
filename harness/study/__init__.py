"""A study: many variants of one recipe, trained over several seeds, ranked, and compared with what a paper reports."""
