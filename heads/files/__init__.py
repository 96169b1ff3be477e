"""Heads as plain Keras ``.hdf5`` files: out, and safely in; ensembles; the backbone of a head."""
