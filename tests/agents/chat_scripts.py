"""Scripts of models' answers by name, for tests of other libraries' runners."""

import json

OPTIONS = {
    **{"cases": "phantoms:abdomen", "split": "test", "backbone": "ellipse", "image_size": 64},
    **{"texts": "terse", "max_steps": 3},
}


def call(name, **arguments):
    """A call in the words of an answer."""
    body = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>{body}</tool_call>"


BOX, STOP = call("add_bbox", bbox_2d=[250, 250, 750, 750]), call("stop_action")
VOLUMES = {"env_id": "MedSegVolumeChat-v0", "cases": "phantoms-volume"}
"""Options on top of `OPTIONS` for volumes."""
SCRIPTS = {
    "box, stop": [BOX, STOP],
    "all steps": [BOX, call("add_point", point_2d=[400, 500], point_type="positive"), BOX],
    "stop": [STOP],
    "no call": ["Let me see.", BOX, STOP],
    "nothing": ["", "", ""],
    "spaces": ["  \n", BOX, STOP],
    "cut inside a call": [BOX[:-30], STOP],
    "unknown tool": [call("segment_all"), STOP],
    "wrong arguments": [call("add_bbox", bbox_2d=[1, 2]), call("add_bbox"), STOP],
    "outside": [call("add_bbox", bbox_2d=[-500, 0, 5000, 10]), STOP],
    "half a megabyte": ["a" * 500_000, STOP],
}
"""Answers by name; the conversation ends by itself with the last."""
