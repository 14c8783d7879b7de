"""Two channels that say the same: tasks whose samples join those of two tasks of other domains, by their labels."""
