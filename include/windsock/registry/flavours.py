"""A model folder as MLflow knows it: the same model, for ``mlflow.pyfunc`` and the UI, and no pickle.

LightGBM and PyTorch have flavours of their own. A linear model is plain JSON that needs no
library, and MLflow has no flavour for that which does without pickle or code: its folder
goes up as it is, under a flavour named ``windsock`` that says which format it is of.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version as library_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from windsock.served.formats.lightgbm import LightGBMModel
    from windsock.served.formats.torch import TorchModel
    from windsock.served.model import Model

MODEL_NAME = "model"


def save_flavour(model: Model, target: str, run_id: str, model_id: str) -> None:
    """Write a model as an MLflow model.

    Args:
        model: As :func:`windsock.served.model.load` gives it.
        target: A folder that does not exist yet.
        run_id: MLflow's run that the model belongs to.
        model_id: MLflow's id of the logged model.
    """
    from mlflow.models import Model as MlflowModel

    from windsock.served.formats.lightgbm import LightGBMModel
    from windsock.served.formats.torch import TorchModel

    about = MlflowModel(run_id=run_id, model_id=model_id, artifact_path=MODEL_NAME)
    if isinstance(model, LightGBMModel):
        save_mlflow_lightgbm(model, target, about)
    elif isinstance(model, TorchModel):
        save_mlflow_torch(model, target, about)
    else:
        _save_folder(model, target, about)


def save_mlflow_lightgbm(model: LightGBMModel, target: str, about: Any) -> None:
    """Write trees in MLflow's LightGBM flavour: columns by name in, scores out."""
    import mlflow.lightgbm
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    mlflow.lightgbm.save_model(
        model.booster,
        target,
        mlflow_model=about,
        signature=ModelSignature(
            Schema([ColSpec("double", name, required=False) for name in model.feature_names]),
            Schema([ColSpec("double")]),
        ),
        # Named outright: otherwise MLflow starts a process that imports everything to find out.
        pip_requirements=[f"lightgbm=={library_version('lightgbm')}"],
    )


def save_mlflow_torch(model: TorchModel, target: str, about: Any) -> None:
    """Write a network in MLflow's PyTorch flavour: a matrix in model order in, scores out.

    MLflow traces the program once more and stores two sample rows with it in PyTorch's format
    for tensors, which its loader insists on; with ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false``
    it checks that they are tensors alone. Windsock's own copy of the model has none.
    """
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    width = len(model.features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pytorch.save_model(
            model.module,
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


def _save_folder(model: Model, target: str, about: Any) -> None:
    folder = Path(target) / "data"
    folder.mkdir(parents=True)
    for name, content in model.files().items():
        (folder / name).write_bytes(content)
    about.add_flavor("windsock", data="data")
    about.save(str(Path(target) / "MLmodel"))


__all__ = ["MODEL_NAME", "save_flavour", "save_mlflow_lightgbm", "save_mlflow_torch"]
