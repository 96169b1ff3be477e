"""A head on the rows of a store: which rows, its mistakes, a report about it."""
