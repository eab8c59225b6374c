"""Judges turn pairs of exemplar grids into verdicts, and verdicts into statistics (Bağcı et al. 2026, appendix B.1).

`pairing`, `planted`, `manifest` and `grids` say what is asked; `client`, `proxies` and `scripted` are who is asked;
`asking` and `replies` ask, and keep what comes back; `reading`, `votes`, `ranking`, `agreement`, `calibration` and
`report` say what it means; `serving` starts servers.
"""
