"""Code that every command uses: parameters, files, arrays, dotted settings, errors."""
