"""The settings of the agent of `scripts/chaos messages`."""

SETTINGS = """\
[agent]
host = "process"

[start]
stagger = 0
login_every = 0

[worker]
burst = 500
pack = {pack}

[memory]
total = 0

[reconnect]
base = 0.5
attempts = 1000
max = 20
breaker_failures = 100

[[webhook]]
name = "consumer"
url = "http://127.0.0.1:{port}/"
private = true
kinds = ["message*"]
oldest = true
"""
"""No wait for a process that was killed on purpose is longer than the fault."""
