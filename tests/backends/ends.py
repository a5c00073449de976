"""The rows of tests/test_ends_of_pairings.py for agent/backends: each is a part of an act that its
caller has a proof or a person's word for; `pairing_code` refuses what may have a pairing."""

PARTS = {
    ("backends/server.py", "Server.logout", "api.logout"),
    ("backends/server.py", "Server.delete", "api.delete"),
    ("backends/server.py", "Server.renew", "api.renew"),
    ("backends/evolution.py", "Evolution.logout", "renewal.log_out"),
    ("backends/evolution.py", "Evolution.delete", "renewal.delete"),
    ("backends/evolution.py", "Evolution.renew", "renewal.log_out"),
    ("backends/evolution.py", "Evolution.renew", "renewal.take_away"),
    ("backends/evolution.py", "Evolution.pairing_code", "renewal.log_out"),
    ("backends/evolution_renewal.py", "Renewal.log_out", "calls.logout"),
    ("backends/evolution_renewal.py", "Renewal._remove", "calls.logout"),
    ("backends/evolution_renewal.py", "Renewal._remove", "calls.delete"),
}
