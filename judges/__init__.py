"""Judges turn pairs of exemplar grids into verdicts, and verdicts into statistics.

What a judge is stands in `judges.protocol`. No judge is built in yet: tables say so instead of showing an LLM Rank.
"""
