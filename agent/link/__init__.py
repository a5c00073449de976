"""The link between the agent and a worker: one Unix socket, one JSON object a line.

Up go claims, events and replies; down go calls. The first call is `hello`: its reply says who the
worker is, and puts the caller in charge.
"""
