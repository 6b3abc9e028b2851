"""From a file or the hub to batches on the device; knows nothing of models."""
