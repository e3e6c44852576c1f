"""What every admin page shares. Nothing is imported here: unfold renders a widget while it is being
imported, which loads the tag library that needs `words`."""
