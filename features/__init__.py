"""Images to bottlenecks: the feature store and how it is filled and read."""
