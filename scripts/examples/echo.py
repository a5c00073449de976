# Answers each message of a session with its own text, once: `python3 echo.py SESSION`.
import json
import time
from os import getenv
from pathlib import Path
from sys import argv, exit, stderr
from urllib.request import Request, urlopen

argv[1:] or exit("usage: python3 echo.py SESSION")
URL = f"{getenv('WA_AGENT_URL', 'http://127.0.0.1:8470')}/api/instance/{argv[1]}/messages"
HEADERS = {"Authorization": f"Bearer {key}"} if (key := getenv("WA_AGENT_KEY")) else {}
place = Path.home() / f".echo-{argv[1]}.cursor"  # how far it came: after a kill it goes on there
after = (place.exists() and place.read_text()) or "newest"  # at first: what comes from now on
while True:
    record = {}
    try:
        asked = f"{URL}?after={after}&wait={30 if place.exists() else 0}"
        page = json.load(urlopen(Request(asked, None, HEADERS), None, 90))
        for record in page["records"]:
            if record.get("answerable") and record.get("text") and not record.get("from_me"):
                answer = json.dumps({"to": record["chat"], "text": record["text"]}).encode()
                # The same key is the same answer: asked again after a kill, it goes out once.
                its = {"Content-Type": "application/json", "Idempotency-Key": record["id"]}
                urlopen(Request(URL, answer, HEADERS | its), None, 90)
        place.write_text(after := str(page["next"]))
    except Exception as error:  # the agent is away or busy: it is asked again
        print(record.get("id", URL), error, getattr(error, "read", bytes)().decode(), file=stderr)
        if record and getattr(error, "code", 0) in {*range(400, 500)} - {401, 403, 408, 429}:
            after = str(record["cursor"])  # it would be refused again: the next one does not wait
        time.sleep(1)
