"""A worker's exit status in words. Pure."""

SYSTEMDS_OWN = {
    66: "its folder or its identity file cannot be used",
    200: "its working folder cannot be entered",
    203: "its program cannot be executed",
    216: "its group is unknown",
    217: "its user is unknown",
    226: "its view of the file system cannot be made (a path of its unit is missing?)",
    233: "its runtime folder cannot be made",
    238: "its state folder cannot be made",
    243: "a credential of its unit cannot be read (the file of a LoadCredential= is missing?)",
}
"""What an exit status says: the worker's own, and systemd's of a program it could not start."""


def words(result: str, exit_status: int) -> str:
    if not exit_status:
        return result
    meaning = SYSTEMDS_OWN.get(exit_status, "")
    return f"{result}, exit status {exit_status}" + (f": {meaning}" if meaning else "")
