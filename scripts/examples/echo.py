"""Answers each message of a session with its own text, once: `python3 echo.py SESSION`."""

import json
import os
import sys
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

AGENT = os.environ.get("WA_AGENT_URL", "http://127.0.0.1:8470")
URL = f"{AGENT}/api/instance/{sys.argv[1]}/messages"
LATER = (401, 403, 408, 429)  # of the 4xx, these are no verdict on the message
HEADERS = {"Content-Type": "application/json"}
if key := os.environ.get("WA_AGENT_KEY"):
    HEADERS["Authorization"] = f"Bearer {key}"
place = Path(f"echo-{sys.argv[1]}.cursor")  # how far it came: after a kill it goes on there
while True:
    try:
        after = place.read_text() if place.exists() else 0
        page = json.load(urlopen(Request(f"{URL}?after={after}&wait=30", None, HEADERS), None, 90))
        for record in page["records"]:
            skip = record.get("from_me") or not record.get("text")
            if record["kind"] != "message" or not record.get("answerable", True) or skip:
                continue  # a status post, for one
            answer = json.dumps({"to": record["chat"], "text": record["text"]}).encode()
            try:
                # The same key is the same answer: asked again after a kill, it goes out once.
                urlopen(Request(URL, answer, HEADERS | {"Idempotency-Key": record["id"]}), None, 90)
            except HTTPError as error:
                if error.code // 100 != 4 or error.code in LATER:
                    raise
                # Asked again, it is refused again: the next message is not to wait for it.
                print(f"cannot answer {record['id']}: {error}", file=sys.stderr)
        place.with_suffix(".new").write_text(str(page["next"]))
        place.with_suffix(".new").replace(place)
    except (OSError, HTTPException) as error:  # the agent is away or busy: it is asked again
        print(error, file=sys.stderr)
        time.sleep(1)
