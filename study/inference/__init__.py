"""Trained networks in use: an export as a module that takes pictures and gives classes."""

from study.inference.loading import load
from study.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor", "load"]
