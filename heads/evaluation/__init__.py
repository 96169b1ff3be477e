"""A head on the rows of a store: which rows, its mistakes, one page about it."""
