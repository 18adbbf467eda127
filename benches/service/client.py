"""Clients of the service and of its peer, and the data that they send."""

import http.client
import io
import json
import time

import numpy as np

ENDED = {"trained", "failed", "cancelled"}


def csv_of(n_rows, n_features, seed=0):
    """The text of a CSV: y is linear in x0, x1, .. plus noise; six digits a number."""
    draw = np.random.default_rng(seed)
    X = draw.standard_normal((n_rows, n_features))
    y = X @ draw.standard_normal(n_features) + 3 + draw.standard_normal(n_rows)
    text = io.StringIO()
    names = ",".join(["y"] + [f"x{i}" for i in range(n_features)])
    np.savetxt(text, np.column_stack([y, X]), delimiter=",", fmt="%.6g", header=names, comments="")
    return text.getvalue()


class Client:
    """One kept connection, as the peer's interface is used: JSON, and looking again until the model has ended."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=900)

    def send(self, method, path, body=None, **headers):
        self.connection.request(method, path, body, headers)
        reply = self.connection.getresponse()
        text = reply.read()
        if reply.status >= 300:
            raise SystemExit(f"{method} {path}: {reply.status} {text[:300]!r}")
        return text

    def call(self, *arguments, **headers):
        return json.loads(self.send(*arguments, **headers))

    def post(self, path, **fields):
        return self.call("POST", path, json.dumps(fields), **{"Content-Type": "application/json"})

    def submit(self, data, n_folds, penalties):
        return self.post("/train", data=data, target="y", n_folds=n_folds, fit_intercept=True, l2_coef=penalties)["model_id"]

    def ended(self, model, every=0.002):
        while True:
            document = self.call("GET", f"/model/{model}")
            if document["status"] in ENDED:
                assert document["status"] == "trained", document
                return document
            time.sleep(every)

    def train(self, data, n_folds, penalties):
        return self.ended(self.submit(data, n_folds, penalties))

    def body(self, data):
        """Of a request for predictions, and its type."""
        return json.dumps({"data": data}).encode(), "application/json"

    def send_rows(self, model, body, content_type):
        return self.send("POST", f"/model/{model}/predict", body, **{"Content-Type": content_type})

    def predict(self, model, data):
        return json.loads(self.send_rows(model, *self.body(data)))["result"]


class OwnClient(Client):
    """As the service wants to be used: the CSV as it is, and one request that is answered when the model has ended."""

    def train(self, data, n_folds, penalties):
        path = f"/train?target=y&n_folds={n_folds}&l2_coef={','.join(map(repr, penalties))}"
        headers = {"Content-Type": "text/csv", "Prefer": "wait=60"}
        document = self.call("POST", path, data.encode(), **headers)
        return document if "best" in document else self.ended(document["model_id"])

    def body(self, data):
        return data.encode(), "text/csv"
