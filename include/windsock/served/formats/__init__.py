"""Model formats that Windsock can serve, one module each; ``served.model.load`` picks by the card's ``format``.

Every format is data that is read, never code that runs: LightGBM's own text, ONNX, PyTorch's
exported program, and linear models as plain JSON.
"""
