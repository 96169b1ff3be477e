"""Which rows serve what: parts and folds by patient, and rows to batches."""
