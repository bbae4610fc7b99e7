"""What every package needs: errors, files, output, progress, intervals."""
