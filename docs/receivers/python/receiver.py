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
TOLERANCE = 300  # seconds
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

SECRET = os.environ.get("WEBHOOK_SECRET") or sys.exit("WEBHOOK_SECRET is not set")
KEY = base64.b64decode(SECRET[6:], validate=True) if SECRET.startswith("whsec_") else SECRET.encode()
INBOX = pathlib.Path(os.environ.get("INBOX", "inbox"))
DONE = INBOX / "done"
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
        store(delivery, body)  # an exception closes the connection, and the call is tried again
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


def store(delivery, body):
    """Keeps a delivery under its id, which is the same for every attempt: a repeated one is already there."""
    if (INBOX / delivery).exists() or (DONE / delivery).exists():
        return
    with tempfile.NamedTemporaryFile(dir=INBOX, prefix=".new-") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, INBOX / delivery)
        except FileExistsError:
            pass
    arrived.set()


def work():
    """Handles what is in the inbox, also what was left when the process ended."""
    while True:
        arrived.clear()
        for path in sorted(p for p in INBOX.iterdir() if UUID.fullmatch(p.name)):
            try:
                handle(path.name, json.loads(path.read_bytes()))
                path.rename(DONE / path.name)
            except Exception as problem:  # it is tried again
                print(path.name, problem, file=sys.stderr)
        arrived.wait(10)


def handle(delivery, event):
    """Is where your work goes.

    A crash between it and the rename repeats it: keep the delivery's id beside what you write, in one
    transaction, where that must not happen.
    """
    print(delivery, event.get("event_type", "batch"), flush=True)


if __name__ == "__main__":
    DONE.mkdir(parents=True, exist_ok=True)
    threading.Thread(target=work, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Receiver).serve_forever()
