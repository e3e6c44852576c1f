"""System checks across rooms."""
