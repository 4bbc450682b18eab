"""Differentially private training at one hospital."""
