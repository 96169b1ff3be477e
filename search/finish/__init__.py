"""After the last trial: repeats, refit, calibration, the held-out test, the verdict."""
