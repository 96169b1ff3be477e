"""A study to look at: its report, and Optuna's dashboard on a copy of it."""
