"""The caller's own objects, of whatever library, as victims and samples of a task."""
