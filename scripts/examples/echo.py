"""Answers each message of a session with its own text, once: `python3 echo.py SESSION`."""

import json
import os
import sys
import time
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

AGENT = os.environ.get("WA_AGENT_URL", "http://127.0.0.1:8470")
URL = f"{AGENT}/api/instance/{sys.argv[1]}/messages"
HEADERS = {"Content-Type": "application/json"}
if key := os.environ.get("WA_AGENT_KEY"):
    HEADERS["Authorization"] = f"Bearer {key}"
place = Path(f"echo-{sys.argv[1]}.cursor")  # how far it came: after a kill it goes on there
while True:
    try:
        after = place.read_text() if place.exists() else 0
        page = json.load(urlopen(Request(f"{URL}?after={after}&wait=30", None, HEADERS), None, 90))
        for record in page["records"]:
            if record["kind"] == "message" and not record["from_me"] and record.get("text"):
                answer = json.dumps({"to": record["chat"], "text": record["text"]}).encode()
                # The same key is the same answer: asked again after a kill, it goes out once.
                urlopen(Request(URL, answer, HEADERS | {"Idempotency-Key": record["id"]}), None, 90)
        place.with_suffix(".new").write_text(str(page["next"]))
        place.with_suffix(".new").replace(place)
    except (OSError, HTTPException) as error:  # the agent is away, or refuses: it is asked again
        print(error, file=sys.stderr)
        time.sleep(1)
