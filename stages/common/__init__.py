"""Parameters, files, arrays, dotted settings, and how commands end."""
