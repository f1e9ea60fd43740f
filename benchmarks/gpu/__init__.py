"""``python -m benchmarks gpu``: what a machine without Ray, vLLM and network can show of the GPU path, in under ten minutes.

Every line is a function that :func:`benchmarks.gpu.lines.line` registers; ``cli`` asks a process (``serve``) for one after
another, with a limit for each, and writes what came out after every line. A line that fails, hangs or takes its process
down is recorded as such, and the next one starts in a new process. ``--device cpu --tiny`` rehearses all of it without a GPU.
"""
