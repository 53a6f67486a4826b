"""A receiver of MediLab's webhooks, with the standard library. Copy it, and write what handle does.

    WEBHOOK_SECRET=... python3 receiver.py
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY = 11 << 20  # events have at most 10 MB
TOLERANCE = int(os.environ.get("TOLERANCE", "300"))  # seconds
GAP_WAIT = int(os.environ.get("GAP_WAIT", "900"))  # seconds for which a missing number is waited for
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

SECRET = os.environ.get("WEBHOOK_SECRET") or sys.exit("WEBHOOK_SECRET is not set")
KEY = base64.b64decode(SECRET[6:], validate=True) if SECRET.startswith("whsec_") else SECRET.encode()
INBOX = pathlib.Path(os.environ.get("INBOX", "inbox"))
DONE = INBOX / "done"
SEQUENCE = INBOX / "sequence"
NEXT = INBOX / "next"
arrived = threading.Event()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self):
        """Stores a delivery and answers at once; the work is done afterwards."""
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)  # the exact bytes: what is signed
        delivery = self.headers.get("webhook-id", "")
        if not verify(delivery, self.headers.get("webhook-timestamp", ""), body, self.headers.get("webhook-signature", "")):
            return self.answer(401)
        sequence = self.headers.get("X-Webhook-Sequence", "")
        store(delivery, sequence, body)  # an exception closes the connection, and the call is tried again
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def verify(delivery, timestamp, body, signatures):
    """Says whether one of the signatures is ours and the call is recent.

    During a rotation there are several: the old secret's and the new one's.
    """
    if not UUID.fullmatch(delivery) or not re.fullmatch(r"[0-9]{1,12}", timestamp):
        return False
    if abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    signed = f"{delivery}.{timestamp}.".encode() + body
    want = b"v1," + base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256))
    # compare_digest takes constant time
    return any(hmac.compare_digest(want, one.encode()) for one in signatures.split())


def store(delivery, sequence, body):
    """Keeps a delivery under its id, which is the same for every attempt: a repeated one is already there."""
    if (INBOX / delivery).exists() or (DONE / delivery).exists():
        return
    with tempfile.NamedTemporaryFile(dir=INBOX, prefix=".new-") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
        if re.fullmatch(r"[0-9]{1,18}", sequence):
            (SEQUENCE / delivery).write_text(sequence)
        try:
            os.link(file.name, INBOX / delivery)
        except FileExistsError:
            pass
    arrived.set()


def work():
    """Handles what is in the inbox, also what was left when the process ended."""
    while True:
        arrived.clear()
        work_through()
        arrived.wait(10)


def work_through():
    """Handles deliveries in the order of their numbers, if they have one (the webhook's field sequence).

    What comes after a number that is missing waits for it, for a time.
    """
    expected = max(1, read_number(NEXT))
    waiting = [(read_number(SEQUENCE / p.name), p) for p in INBOX.iterdir() if UUID.fullmatch(p.name)]
    for number, path in sorted(waiting):
        if number > expected:
            if time.time() - path.stat().st_mtime < GAP_WAIT:
                return
            feed = f"GET /api/v1/webhooks/{{id}}/feed?after={expected - 1}"
            print(f"{expected} to {number - 1} did not arrive: {feed} has them", file=sys.stderr)
        try:
            handle(path.name, json.loads(path.read_bytes()))
            if number >= expected:
                expected = number + 1
                NEXT.write_text(str(expected))
            path.rename(DONE / path.name)
        except Exception as problem:  # it is tried again
            print(path.name, problem, file=sys.stderr)
            if number:
                return  # those after it wait


def read_number(path):
    """Returns the number in the file, or 0."""
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def handle(delivery, event):
    """Is where your work goes.

    A crash between it and the rename repeats it: keep the delivery's id beside what you write, in one
    transaction, where that must not happen.
    """
    print(delivery, event.get("event_type", "batch"), flush=True)


if __name__ == "__main__":
    DONE.mkdir(parents=True, exist_ok=True)
    SEQUENCE.mkdir(exist_ok=True)
    threading.Thread(target=work, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Receiver).serve_forever()
