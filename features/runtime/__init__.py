"""What every command stands on: errors, files, locks, memory, the Keras backend, the frame of a command line."""
