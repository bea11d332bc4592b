"""A judge that compares words; --fault=NAME makes it misbehave."""

import json
import os
import sys
import time

FAULT = next((one.partition("=")[2] for one in sys.argv[1:] if one.startswith("--fault=")), "")

for number, line in enumerate(sys.stdin):
    request = json.loads(line)
    # Who is asked for a choice is not told the right one.
    assert ("answer" in request) == (request["task"] != "choice")
    same = request.get("answer", "").lower() in request["prediction"].lower()
    replies = {
        "match": {"correct": same, "score": 5 if same else 1},
        "correct": {"correct": same},
        "choice": {"choice": "B" if "passing" in request["prediction"] else None},
        "rate": dict.fromkeys(request.get("ratings", ()), 4 if same else 2),
    }
    reply = replies[request["task"]]
    if FAULT == "score":
        reply = {"correct": same, "score": 7}
    if (FAULT == "error" or os.environ.get("JUDGE_ERROR")) and number == 1:
        reply = {"error": "rate limit"}
    if FAULT == "end" and number == 1:
        sys.exit(3)
    if FAULT == "slow":
        time.sleep(30)
    print("what?" if FAULT == "text" else json.dumps(reply), flush=True)
