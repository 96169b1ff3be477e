"""What is decided before the first trial: space, options, data, seeds."""
