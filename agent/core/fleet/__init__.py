"""Which machine of a fleet runs a session: leases, promises, takeovers, placement.

Each time here is read from one machine's boot clock: no two machines' clocks are compared, and the
clock of the database decides nothing.
"""
