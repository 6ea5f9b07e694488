"""What `pip install segmentation-loss-study` leaves out: the packages of the extra `study`."""

from __future__ import annotations

from study.core.errors import InputError

MODULES = {
    "PIL": "pillow",
    "alembic": "alembic",
    "boto3": "boto3",
    "botocore": "botocore",
    "huggingface_hub": "huggingface-hub",
    "matplotlib": "matplotlib",
    "mlflow": "mlflow",
    "optuna": "optuna",
    "pandas": "pandas",
    "ray": "ray",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
    "timm": "timm",
    "torchvision": "torchvision",
    "tqdm": "tqdm",
}
INSTALL = "pip install 'segmentation-loss-study[study]', or in a clone pip install -e '.[study]'"


def missing_extra(error: ModuleNotFoundError) -> InputError | None:
    """The line for a package of the extra `study` that is not installed; None for any other."""
    package = MODULES.get((error.name or "").partition(".")[0])
    if package is None:
        return None
    return InputError(f"the package {package}, of the extra `study`, is missing", hint=INSTALL)
