"""Generation with vLLM, which lives in a process of its own with a Python environment of its own.

`worker` is the program that runs there; `process` starts it and speaks to it over a socket
(`wire`); `engine` is the `GenerationEngine` on top; `weights` gives a running worker new weights.
"""
