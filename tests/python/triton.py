"""Asks the service for predictions as Triton's own client does, in every way that it has, and compares.

    triton.py HOST:PORT TRAINED QUEUED ROWS.json EXPECTED.json
"""
import json
import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

url, trained, queued = sys.argv[1:4]
rows, expected = (numpy.array(json.load(open(path))) for path in sys.argv[4:])
client = triton.InferenceServerClient(url)

assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready(trained) and not client.is_model_ready(queued) and not client.is_model_ready("999")
assert client.get_server_metadata()["name"] == "ridgeline"
metadata = client.get_model_metadata(trained)
[source], [result] = metadata["inputs"], metadata["outputs"]
columns = metadata["parameters"]["columns"]
assert source["shape"] == [-1, len(columns)] and result["shape"] == [-1], metadata


def tensor(name, array, binary):
    kind = {"f8": "FP64", "f4": "FP32", "i8": "INT64", "i4": "INT32", "i1": "INT8", "u2": "UINT16"}[array.dtype.str[1:]]
    sent = triton.InferInput(name, list(array.shape), kind)
    sent.set_data_from_numpy(array, binary_data=binary)
    return sent


def infer(inputs, **options):
    reply = client.infer(trained, inputs, request_id="request 1", **options)
    assert reply.get_response()["id"] == "request 1" and reply.get_response()["model_name"] == trained
    array = reply.as_numpy(result["name"])
    assert array.dtype == numpy.float64 and array.shape == (len(inputs[0]._get_tensor()["shape"]) and inputs[0].shape()[0],)
    return array


for binary in (True, False):
    whole = [tensor("input", rows, binary)]
    by_column = [tensor(name, rows[:, index].copy(), binary) for index, name in reversed(list(enumerate(columns)))]
    for inputs in (whole, by_column):
        assert (infer(inputs) == expected).all()
        for output_binary in (True, False):
            outputs = [triton.InferRequestedOutput(result["name"], binary_data=output_binary)]
            assert (infer(inputs, outputs=outputs) == expected).all()
    assert (infer(whole, request_compression_algorithm="gzip") == expected).all()
    single = infer([tensor("input", rows.astype(numpy.float32), binary)])
    assert numpy.allclose(single, expected, rtol=1e-5), (single, expected)
    # The same whole numbers in every type.
    whole_numbers = numpy.array([[1.0, 2.0], [100.0, 3.0]])
    exact = infer([tensor("input", whole_numbers, binary)])
    for kind in ("<f4", "<i8", "<i4", "<i1", "<u2"):
        assert (infer([tensor("input", whole_numbers.astype(kind), binary)]) == exact).all(), kind

for model, inputs, words in [
    (queued, whole, "not trained"),
    ("999", whole, "there is no model"),
    (trained, [tensor("input", rows[:, :1].copy(), True)], "of shape [rows, 2]"),
    (trained, [tensor("nonsense", rows[:, 0].copy(), True)], "is not a column"),
    (trained, by_column[:1], "is missing"),
]:
    try:
        client.infer(model, inputs)
    except InferenceServerException as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"{words}: was not refused")
print("ok")
