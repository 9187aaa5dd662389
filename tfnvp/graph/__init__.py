"""All that is there for TensorFlow's graphs, and that no reader of the mathematics needs."""
