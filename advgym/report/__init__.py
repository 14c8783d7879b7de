"""Results as HTML pages: tables, curves, examples."""
