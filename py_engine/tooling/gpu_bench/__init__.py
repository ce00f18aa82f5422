"""What the engine's kernels cost on a GPU, at the shapes of real models with random weights.

`main.py` runs in Pyodide next to the engine: in Node.js by `node_gpu.mjs`.
"""
