"""The commands of ``subo``, thin: what they do is in the library, and can be done without them."""
