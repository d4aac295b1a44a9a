"""Preceptor: small segmentation networks that learned from teachers who saw more than the image."""

__version__ = "0.1.0"
