"""A disk that is full: one line, and the store goes on where it was."""

import errno
import os
import pickle
import re
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import build_features, build_header, fill_store

from features.runtime.errors import DiskFullError
from features.store.reader import FeatureStore
from features.store.schema import RowState
from features.store.writer import StoreWriter

LIMITED = """
import pickle, sys
from pathlib import Path
from features.runtime.errors import BottleneckError
from features.store.writer import StoreWriter

header, features, states = pickle.loads(Path(sys.argv[1]).read_bytes())
try:
    with StoreWriter(Path(sys.argv[2]), header) as writer:
        for rows in writer.pending():
            writer.write(rows, features[rows.start : rows.stop], states[rows.start : rows.stop])
        writer.finish()
except BottleneckError as error:
    print(error)
    sys.exit(error.exit_status)
"""


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    header = build_header(rows=64, batch_size=8, shape=(4, 4, 64))
    features, states = build_features(header), np.full(64, RowState.DONE, np.uint8)
    fill_store(tmp_path / "whole.h5", header, features, states)
    (tmp_path / "material.pickle").write_bytes(pickle.dumps((header, features, states)))
    path = tmp_path / "stores" / "a.h5"

    def write(limit):
        return subprocess.run(
            [sys.executable, "-c", LIMITED, tmp_path / "material.pickle", path],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )

    at_creation = write(50_000)
    assert (at_creation.returncode, at_creation.stderr) == (1, "")
    message = r"a\.h5: larger than a file may be here \(.*\); raise that limit and run the same command again\n"
    assert re.search(message, at_creation.stdout)
    assert not list(path.parent.iterdir())

    fill_store(path, header, features, states, batches=2)
    in_the_midst = write(80_000)
    assert (in_the_midst.returncode, in_the_midst.stderr) == (1, "")
    assert "a.h5: larger than a file may be here" in in_the_midst.stdout
    store = FeatureStore(path)
    assert store.done.tolist() == [RowState.DONE] * 16 + [RowState.PENDING] * 48
    assert np.array_equal(store.features[:16], features[:16])
    fill_store(path, header, features, states)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_quota_that_is_used_up_is_met_before_hdf5_writes(tmp_path, monkeypatch):
    """It would end the process."""

    def allocate(descriptor, size):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr("features.store.contiguous.allocate", allocate)
    monkeypatch.setattr(h5py, "File", lambda *_, **__: pytest.fail("HDF5 writes"))
    with pytest.raises(DiskFullError):
        StoreWriter(tmp_path / "a.h5", build_header(rows=64, batch_size=8, shape=(4, 4, 64)))
    assert not list(tmp_path.iterdir())
