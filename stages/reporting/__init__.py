"""The report page: table, figures, sentences, targets."""
