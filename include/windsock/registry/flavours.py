"""A model folder as MLflow knows it: the same model, for ``mlflow.pyfunc`` and the UI, and no pickle.

LightGBM's trees and PyTorch modules have flavours of their own. For the other formats MLflow has none that does without
pickle, code or a package that is not in the lock (ONNX): their folder goes up as it is, under a flavour ``windsock``.
"""

import sys
import warnings
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import numpy as np

from windsock.served.model import Model

MODEL_NAME = "model"


def save_flavour(model: Model, target: str, run_id: str, model_id: str) -> None:
    """Write a model as an MLflow model of a run into a folder that does not exist yet; ``model_id`` is MLflow's."""
    from mlflow.models import Model as MlflowModel
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    about = MlflowModel(run_id=run_id, model_id=model_id, artifact_path=MODEL_NAME)
    inputs: list[ColSpec | TensorSpec] = [ColSpec("double", name, required=False) for name in model.feature_names]
    about.signature = ModelSignature(Schema(inputs), Schema([ColSpec("double")]))
    lightgbm, torch = sys.modules.get("lightgbm"), sys.modules.get("torch")
    if lightgbm is not None and isinstance(model.engine, lightgbm.Booster):
        import mlflow.lightgbm

        # Needs named outright: otherwise MLflow starts a process that imports everything to find out.
        needs = [f"lightgbm=={library_version('lightgbm')}"]
        mlflow.lightgbm.save_model(
            model.engine, target, mlflow_model=about, signature=about.signature, pip_requirements=needs
        )
    elif torch is not None and isinstance(model.engine, torch.nn.Module):
        _save_torch(model.engine, len(model.features), target, about)
    else:
        folder = Path(target) / "data"
        folder.mkdir(parents=True)
        for name, content in model.content.items():
            (folder / name).write_bytes(content)
        about.add_flavor("windsock", data="data")
        about.save(str(Path(target) / "MLmodel"))


def _save_torch(module: Any, width: int, target: str, about: Any) -> None:
    """Write a network in MLflow's PyTorch flavour: a matrix in model order in, scores out.

    MLflow traces the program once more and stores two sample rows with it in PyTorch's format for tensors, which its
    loader insists on; with ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false`` it checks that they are tensors alone.
    """
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pytorch.save_model(
            module,
            target,
            mlflow_model=about,
            serialization_format="pt2",
            # More than one row, or the program would take one row alone.
            input_example=np.zeros((2, width)),
            signature=ModelSignature(
                Schema([TensorSpec(np.dtype("float64"), (-1, width))]),
                Schema([TensorSpec(np.dtype("float64"), (-1,))]),
            ),
            pip_requirements=[f"torch=={library_version('torch').partition('+')[0]}"],
        )
