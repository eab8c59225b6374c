"""Results: what was measured, as records on disk, and the tables made of them.

This package knows numpy and pandas, and neither the bench nor the other libraries. Importing it imports nothing heavy.
`results.records` says what a record is, `results.ledger` keeps records in a file, `results.layout` and
`results.summaries` say what a table shows and compute it, `results.specs` and `results.published` hold the tables and
the paper's own figures, `results.markdown` and `results.tables` render them.
"""
