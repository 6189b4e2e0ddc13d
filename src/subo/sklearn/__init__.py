"""The scikit-learn estimator."""

from subo.sklearn.estimator import VariationalAutoencoder

__all__ = ["VariationalAutoencoder"]
