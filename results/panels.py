"""What a panel of judges found at one site, as far as figures show it, without the package that computes it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """A number that may be missing.

    Attributes:
        value: None where it cannot be told.
        low: Lower end of its 95 % interval; None where there is none.
        high: Upper end.
        reason: Why something is missing; empty otherwise.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Voter:
    """One judge of a panel.

    Attributes:
        judge: Its name.
        kind: What it is: "vlm", "proxy", ...
        first: Share of its votes for the first grid, in %, on unit pairs with a valid vote in both orders.
        flips: Share of those unit pairs on which it named one place twice, in %.
    """

    judge: str
    kind: str
    first: Share
    flips: Share


@dataclass(frozen=True)
class Finding:
    """What one panel found at one site.

    Attributes:
        site: Label of the site.
        panel: Name of the panel.
        kind: "llm_panel" or "proxy_panel".
        title: What was judged, and by what kind of panel.
        labels: Labels of the methods, best first.
        groups: Of each, the letters of its rank groups; methods that share one cannot be separated.
        wins: Presentations that the method of the row won against that of the column.
        flips: Of each, the share of its unit pairs whose winner changes with the order, in %.
        voters: The judges.
        kappas: Cohen's kappa of each two judges.
        alpha: Krippendorff's alpha of the panel.
        warnings: What a reader has to be told first.
    """

    site: str
    panel: str
    kind: str
    title: str
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    wins: tuple[tuple[int, ...], ...]
    flips: tuple[Share, ...]
    voters: tuple[Voter, ...]
    kappas: tuple[tuple[str, str, Share], ...]
    alpha: Share
    warnings: tuple[str, ...] = ()
