"""A digest of Python source that renaming, comments, docstrings and layout do not change. Nothing is compiled."""

from __future__ import annotations

import hashlib
import io
import keyword
import tokenize

MOST_BYTES = 1 << 20  # longer files are hashed as they are
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_BARE = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}  # their text is layout, their place is not


class _Scopes:
    """Numbers of names, counted anew in every function: renaming in one moves no number of another."""

    def __init__(self) -> None:
        self.depth, self.after_def = 0, False
        self.open: list[tuple[int, dict[str, int]]] = [(-1, {})]  # (depth of its `def`, numbers)

    def number(self, name: str) -> int:
        """Of a name here; what follows a function's own name is the function's."""
        names = self.open[-1][1]
        found = names.setdefault(name, len(names))
        if self.after_def:
            self.open.append((self.depth, {}))
            self.after_def = False
        return found

    def line(self, kind: int, body: bool) -> None:
        """The end of a line, or a step in or out; `body`: a step in follows."""
        self.depth += (kind == tokenize.INDENT) - (kind == tokenize.DEDENT)
        ends = kind == tokenize.DEDENT or (kind == tokenize.NEWLINE and not body)
        while ends and self.open[-1][0] >= self.depth:
            self.open.pop()


def code_digest(source: bytes) -> str:
    """SHA-256 of a file's tokens; names count by the order in which they first appear in their function.

    Source that is no Python is hashed as its bytes.
    """
    if len(source) > MOST_BYTES:
        return hashlib.sha256(source).hexdigest()
    try:
        found = [t for t in tokenize.tokenize(io.BytesIO(source).readline) if t.type not in _LAYOUT]
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
        return hashlib.sha256(source).hexdigest()
    names = _Scopes()
    words: list[str] = []
    start, docstring = True, False  # of a statement; the token before was one
    for i, token in enumerate(found):
        if docstring and token.type == tokenize.NEWLINE:
            docstring = False
            continue
        alone = i + 1 == len(found) or found[i + 1].type == tokenize.NEWLINE
        docstring = token.type == tokenize.STRING and start and alone
        if docstring:
            continue
        start = token.type in _BARE
        if token.type in _BARE:
            words.append(tokenize.tok_name[token.type])
            names.line(token.type, body=i + 1 < len(found) and found[i + 1].type == tokenize.INDENT)
        elif token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            words.append(f"#{names.number(token.string)}")
        else:
            names.after_def = token.string == "def"
            words.append(token.string)
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()
