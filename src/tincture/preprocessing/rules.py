"""The settings as rules for cutting, without what does not apply."""

from __future__ import annotations

from tincture.preprocessing.cut_jobs import CutRules, SplitRules
from tincture.preprocessing.faces import Detector
from tincture.preprocessing.focal import FocalWeights
from tincture.preprocessing.geometry import MulticropRules
from tincture.settings.preprocess import PreprocessSettings


def cut_rules(settings: PreprocessSettings, detector: Detector) -> CutRules:
    """How every picture is cut; `detector` is the one that works here."""
    return CutRules(
        size=(settings.width, settings.height),
        split=SplitRules(settings.split_threshold, settings.overlap_ratio) if settings.split else None,
        focal=_focal_weights(settings) if settings.focal_crop else None,
        detector=detector,
        yunet_model=settings.yunet_model if detector == "yunet" else "",
        multicrop=_multicrop_rules(settings) if settings.multicrop else None,
        keep_original=settings.keep_original_size,
        flip=settings.flip,
        keep_alpha=settings.keep_alpha,
    )


def _focal_weights(settings: PreprocessSettings) -> FocalWeights:
    return FocalWeights(settings.focal_face_weight, settings.focal_entropy_weight, settings.focal_corner_weight)


def _multicrop_rules(settings: PreprocessSettings) -> MulticropRules:
    return MulticropRules(
        settings.multicrop_min_dim,
        settings.multicrop_max_dim,
        settings.multicrop_min_area,
        settings.multicrop_max_area,
        settings.multicrop_objective,
        settings.multicrop_threshold,
    )
