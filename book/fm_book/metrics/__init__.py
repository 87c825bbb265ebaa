"""How good are the samples? Each metric sees something and is blind to something; none of them judges alone.

All of them look through the one classifier of this project (:mod:`fm_book.metrics.classifier`): a digit becomes the 64 numbers
of its last layer but one. Two decisions keep this room small. Whatever takes features also takes images, and reads them
first; so one pass of :func:`features` can serve all metrics. And a metric returns a plain value for the samples that it
was given, while :func:`bootstrap_interval` puts an interval around any of them. What each one sees, from which number
of samples on, is measured in the chapter *Can we trust the ruler?*.
"""

from fm_book.metrics.distances import Moments, frechet_distance, kernel_distance, kernel_interval, moments
from fm_book.metrics.bootstrap import Interval, bootstrap_interval
from fm_book.metrics.neighbours import Neighbours, PrecisionRecall, nearest_neighbours, precision_recall
from fm_book.metrics.features import class_balance, classes, confidence, features
from fm_book.metrics.scorecard import Reference, in_reference, load_reference, scorecard

__all__ = [
    "Interval",
    "Moments",
    "Neighbours",
    "PrecisionRecall",
    "Reference",
    "bootstrap_interval",
    "class_balance",
    "classes",
    "confidence",
    "features",
    "frechet_distance",
    "in_reference",
    "kernel_distance",
    "kernel_interval",
    "load_reference",
    "moments",
    "nearest_neighbours",
    "precision_recall",
    "scorecard",
]
