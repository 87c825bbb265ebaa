"""Metrics of generated digits, on features of one classifier (:mod:`fm_book.metrics.classifier`).

Functions of features also take images. A metric returns a plain value; :func:`bootstrap_interval` puts an interval
around any of them. What each one sees, and from which number of samples on, is measured in the chapter
*Metrics and their blind spots*.
"""

from fm_book.metrics.bootstrap import (
    Estimate,
    bootstrap_interval,
    proportion_interval,
    seed_difference,
    seed_interval,
)
from fm_book.metrics.classifier import DigitClassifier, load_classifier, train_classifier
from fm_book.metrics.distances import (
    Moments,
    Neighbours,
    PrecisionRecall,
    frechet_distance,
    kernel_distance,
    kernel_interval,
    moments,
    nearest_neighbours,
    precision_recall,
)
from fm_book.metrics.features import (
    class_balance,
    class_probabilities,
    classes,
    confidence,
    features,
)
from fm_book.metrics.scorecard import Reference, evaluate_samples, in_reference, load_reference

__all__ = [
    "DigitClassifier",
    "Estimate",
    "Moments",
    "Neighbours",
    "PrecisionRecall",
    "Reference",
    "bootstrap_interval",
    "class_balance",
    "class_probabilities",
    "classes",
    "confidence",
    "evaluate_samples",
    "features",
    "frechet_distance",
    "in_reference",
    "kernel_distance",
    "kernel_interval",
    "load_classifier",
    "load_reference",
    "moments",
    "nearest_neighbours",
    "precision_recall",
    "proportion_interval",
    "seed_difference",
    "seed_interval",
    "train_classifier",
]
