"""Many machines, one owner for each session: what a fleet's machines agree on.

`coordinator.py` names what is asked of the shared database; `postgres/` does it. The decisions
are `agent/core/fleet/`.
"""
