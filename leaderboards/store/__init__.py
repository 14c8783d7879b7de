"""The database (queue and cache), the files of record, and what rebuilds the one from the others."""
