"""Networks on words, and what is asked of models of `transformers`."""
