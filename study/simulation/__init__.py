"""Studies without training: an event clock drives the real scheduler and search on known curves."""
