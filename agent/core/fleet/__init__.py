"""Which machine of a fleet runs a session: leases, promises, takeovers, placement.

Values in, values out. Every time here is read from one machine's boot clock: no two
machines' clocks are ever compared, and the clock of the database decides nothing.
"""
