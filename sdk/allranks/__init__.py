"""Hear from every rank."""
