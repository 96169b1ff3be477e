"""What parts of a data set share and should not: patients, and near-identical images."""
