"""Other ways to hold the same environment: the edit view, a single lane, Stable-Baselines3, and the checker."""
