"""Prefect flows: how each stage runs, and when the whole pipeline runs."""
