"""What training does with each scheme, beside its encoder and decoder."""

from csiemu.training.schemes.base import SchemeTraining, training_of, trains

__all__ = ["SchemeTraining", "training_of", "trains"]
