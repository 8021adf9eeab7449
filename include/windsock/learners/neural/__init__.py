"""A feed-forward network for tables, or a module of the user's own, trained by PyTorch.

``learner`` is what search and trainer see. Everything here imports PyTorch, so it is imported only to train a network.
"""

import os

# The libraries read these once, when PyTorch is first imported.
# Waiting threads must sleep: spinning ones burn the cores that other tasks need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Without it cuBLAS may add up in another order each time.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
