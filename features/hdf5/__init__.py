"""HDF5 files from elsewhere: looked through before HDF5 follows them, opened and read through one door."""
