"""Paired sessions of other programs, read where they lie and turned into Baileys' multi-file form.

Nothing here writes to a source. A source that a program still uses is refused: two programs with
one session throw each other out.
"""
