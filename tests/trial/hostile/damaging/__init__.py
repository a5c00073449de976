"""Parts of the generator of damaged files: what becomes of whole folders."""
