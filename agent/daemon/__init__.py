"""The agent: its parts in one task group, from the first look at the disk to the orderly stop."""

import mimetypes

# aiohttp would read the machine's list of types at its import, and keep 0.3 MiB; the first that
# asks for a type reads it.
mimetypes.inited = True
