"""What files of a study directory are called that modules below those that write them name, too."""

from __future__ import annotations

STUDY_FILE = "study.json"
SNAPSHOT_FILE = "snapshot.npz"
