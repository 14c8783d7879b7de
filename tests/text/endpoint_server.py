"""A server of one thread that classifies texts, and misbehaves on demand."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD, BAD = ("good", "fine", "great"), ("bad", "awful", "dull")


def score(text):
    words = text.lower().replace(":", " ").split()
    return float(sum(w in GOOD for w in words) - sum(w in BAD for w in words)) + 0.1


def classify(body):
    return {"scores": [[0.0, score(t if isinstance(t, str) else t[-1])] for t in body["texts"]]}


def chat(body):
    """OpenAI's chat or completions, with log-probabilities where they are asked for."""
    prompts = body.get("prompt") or [body["messages"][-1]["content"]]
    choices = []
    for i, prompt in enumerate(prompts):
        z = score(prompt)
        said = "Positive." if z > 0 else "negative"
        top = {" pos": min(z, 0.0) - 0.1, "neg": min(-z, 0.0) - 0.1, "the": -9.0}
        if "messages" in body:
            told = {"content": [{"top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()]}]}
            choices.append({"index": i, "message": {"role": "assistant", "content": said}})
        else:
            told = {"top_logprobs": [top]}
            choices.append({"index": i, "text": " " + said})
        if body.get("logprobs"):
            choices[-1]["logprobs"] = told
    return {"choices": choices[::-1], "usage": {"total_tokens": 10 * len(prompts)}}


class Server:
    """Attributes: bodies, what was asked; seen, headers; script, what the next requests meet (then `answer`)."""

    def __init__(self, answer):
        self.answer, self.script, self.bodies, self.seen, self.paths = answer, [], [], [], []
        self.now = self.most = 0
        self.gate = None  # an event that every request waits for
        self.lock = threading.Lock()


def handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with server.lock:
                server.bodies.append(body)
                server.seen.append(dict(self.headers))
                server.paths.append(self.path)
                does = server.script.pop(0) if server.script else None
                server.now += 1
                server.most = max(server.most, server.now)
            try:
                if server.gate is not None:
                    server.gate.wait(5)
                self.act(does, body)
            finally:
                with server.lock:
                    server.now -= 1

        def act(self, does, body):
            if does == "close":
                self.close_connection = True
                self.connection.close()
            elif does == "half":  # fewer bytes than its header says
                self.send_response(200)
                self.send_header("content-length", "1000")
                self.end_headers()
                self.wfile.write(b'{"scores"')
                self.close_connection = True
            elif isinstance(does, int):
                self.reply(does, b"not now", {})
            elif isinstance(does, tuple):  # (status, seconds)
                self.reply(does[0], b"slow down", {"retry-after": str(does[1])})
            elif isinstance(does, bytes):
                self.reply(200, does, {})
            else:
                made = (does or server.answer)(body)
                self.reply(200, json.dumps(made).encode(), {})

        def reply(self, status, data, headers):
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler


@contextmanager
def serving(answer=classify):
    """(server, its address)."""
    server = Server(answer)
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
    http.daemon_threads, http.handle_error = True, lambda *_: None  # clients that leave are meant to
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
