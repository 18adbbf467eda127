"""What OpenAPI cannot say of a valid request, said to schemathesis.

A schema knows that a CSV is a text. These hooks see to it that requests which are meant to be valid carry CSVs of numbers, name
their columns, and keep to the rules between parameters; everything else is schemathesis' own invention. Requests that are
meant to be invalid are left alone.
"""

import json
import random
import struct
import zlib

import requests
import schemathesis
from schemathesis.generation import GenerationMode

COLUMNS = ["a", "b", "c", "w", "f"]
ROWS = 12
# Ways to write a number.
NUMBERS = ["0", "-0.0", "1", "1e3", "-2.5", "0.125", "+7", "3.", ".5", "12345678901234567890", "-1e-300"]


def csv(source):
    """A CSV that everything may be trained on and predicted from. The same for the same `source`."""
    dice = random.Random(zlib.crc32(repr(source).encode()))
    end = dice.choice(["\n", "\r\n"])
    lines = [dice.choice(["", "\ufeff"]) + ",".join(dice.choice(["{}", '"{}"', " {} "]).format(name) for name in COLUMNS)]
    for row in range(ROWS):
        numbers = [dice.choice(NUMBERS + [f"{dice.gauss(0, 10):.6f}"] * 20) for _ in "abc"]
        lines.append(",".join([*numbers, f"{dice.uniform(0.5, 2):.3f}", str(row % 4)]))
        lines.extend([""] * (dice.random() < 0.05))
    return end.join(lines) + dice.choice(["", end])


def fit(parameters):
    """Makes the parameters of a training fit the CSVs."""
    parameters["target"] = "a"
    for name, column in [("weight_column", "w"), ("fold_column", "f")]:
        if parameters.get(name) not in (None, "null"):
            parameters[name] = column
    if parameters.get("n_folds") not in (None, "null"):
        parameters["n_folds"] = 2 + int(parameters["n_folds"]) % (ROWS - 1)
    if parameters.get("fold_column") not in (None, "null"):
        # The column is the folds.
        parameters.pop("n_folds", None)
        parameters.pop("seed", None)


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    repair = REPAIRS.get(case.operation.label)
    if repair is not None:
        repair(case)
        if "Idempotency-Key" in case.headers:
            # The name of this request, and of no other.
            case.headers["Idempotency-Key"] = f'"{zlib.crc32(repr((case.body, case.query)).encode())}"'


def train(case):
    if case.media_type == "application/json":
        # The query string goes with text/csv alone.
        case.query = {}
        if isinstance(case.body, dict):
            if "data" in case.body:
                case.body["data"] = csv(case.body["data"])
            fit(case.body)
    else:
        case.query = {name: value for name, value in (case.query or {}).items() if name != "dataset_id"}
        fit(case.query)
        case.body = csv(case.body)


def post_dataset(case):
    if case.media_type == "text/csv":
        case.body = csv(case.body)
        return
    # The query string goes with text/csv alone.
    case.query = {}
    for field in ("data", "file"):
        if isinstance(case.body, dict) and field in case.body:
            case.body[field] = csv(case.body[field])


def predict(case):
    if case.media_type == "text/csv":
        case.body = csv(case.body)
    elif isinstance(case.body, dict):
        case.body["data"] = csv(case.body.get("data"))
        if case.body.get("model_id") is not None:
            case.body["model_id"] = case.path_parameters["id"]


def infer(case):
    """Tensors fit one model alone: a client looks first at what it takes."""
    model = case.path_parameters["id"]
    url = case.operation.schema.get_base_url().rstrip("/") + f"/v2/models/{model}"
    found = requests.get(url, headers={"Authorization": case.headers.get("Authorization", "")}, timeout=10)
    if found.status_code != 200:
        return
    numbers = [0.5, -1.0, 2e3]
    inputs = [
        {"name": column, "shape": [len(numbers)], "datatype": "FP64", "data": numbers}
        for column in found.json()["parameters"]["columns"]
    ]
    if isinstance(case.body, dict):
        case.headers.pop("Inference-Header-Content-Length", None)
        case.body = {"id": case.body.get("id"), "inputs": inputs}
    else:
        for tensor in inputs:
            tensor["parameters"] = {"binary_data_size": 8 * len(tensor.pop("data"))}
        head = json.dumps({"inputs": inputs}).encode()
        case.headers["Inference-Header-Content-Length"] = str(len(head))
        case.body = head + len(inputs) * struct.pack(f"<{len(numbers)}d", *numbers)


REPAIRS = {
    "POST /train": train,
    "POST /datasets": post_dataset,
    "POST /model/{id}/predict": predict,
    "POST /v2/models/{id}/infer": infer,
}
