"""Prints what onnxruntime makes of an exported model: its metadata, and the predictions for rows, as JSON.

    onnx_export.py MODEL.onnx ROWS.json
"""
import json
import sys

import numpy
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
[source], [result] = session.get_inputs(), session.get_outputs()
rows = numpy.array(json.load(open(sys.argv[2])), dtype=numpy.float32)
[predictions] = session.run(None, {source.name: rows})
metadata = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
json.dump(
    {
        "input": [source.name, source.type, source.shape],
        "output": [result.name, result.type, result.shape],
        "metadata": metadata,
        "predictions": predictions[:, 0].tolist(),
    },
    sys.stdout,
)
