"""A web server for the built site, and a browser that walks through its pages.

The browser opens one page of the test's own, whose script loads the site's pages into a frame, one
after the other, and sends back what it saw: so one start of the browser is enough.
"""

import json
import queue
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from browser import CHROMIUM

WALK = Path(__file__).with_name("walk.js").read_text(encoding="utf-8")


class Handler(SimpleHTTPRequestHandler):
    """Files of the site, the walking page, and a place to send results to."""

    def do_GET(self):
        if self.path.startswith("/_walk"):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(self.server.walk.encode())
        else:
            super().do_GET()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.results.put(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        """Say nothing."""

    def log_error(self, form, *args):
        self.server.errors.append(f"{self.path}: {form % args}")


class SiteServer:
    """The server, as a context."""

    def __init__(self, pages):
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(pages)))
        self.http.results, self.http.errors, self.http.walk = queue.Queue(), [], ""
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def walk(self, job, folder, patience=300):
        """Let a browser do a job of walk.js; return its result and the browser's messages."""
        self.http.walk = (
            f"<!doctype html><html><body><script>const JOB = {json.dumps(job)};\n{WALK}"
            "</script></body></html>"
        )
        messages = folder / "browser.log"
        with (
            messages.open("wb") as log,
            subprocess.Popen(
                [*command(folder), f"{self.address}/_walk"], stdout=subprocess.DEVNULL, stderr=log
            ) as browser,
        ):
            try:
                result = self.http.results.get(timeout=patience)
            finally:
                browser.terminate()
        return result, messages.read_text(encoding="utf-8", errors="replace")


def command(folder):
    """Command of a browser without a window that reaches this machine only."""
    return [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
        *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--window-size=1500,1000",
    ]
