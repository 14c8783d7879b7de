"""Goals of text attacks beyond a wrong class."""
